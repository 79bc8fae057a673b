"""What users reported (Synapse's "Event reports" and "User reports")."""

from __future__ import annotations

import re

import msgspec

from homeserver.api.admin import audit
from homeserver.api.admin.paging import Page
from homeserver.core.errors import invalid_param
from homeserver.core.types import JsonObject
from homeserver.rooms.reports import Reports, ShownReport
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint
from storage.reports import Wanted

_EVENTS = "/_synapse/admin/v1/event_reports"
_USERS = "/_synapse/admin/v1/user_reports"
_NUMBER = re.compile(r"[0-9]{1,15}")


class EventReportsQuery(Page, frozen=True):
    user_id: str | None = None
    room_id: str | None = None
    event_sender_user_id: str | None = None


class UserReportsQuery(Page, frozen=True):
    user_id: str | None = None
    target_user_id: str | None = None


class EventReport(msgspec.Struct):
    id: int
    received_ts: int
    room_id: str | None
    event_id: str | None
    user_id: str
    score: int | None
    reason: str
    sender: str | None
    canonical_alias: str | None
    name: str | None


class WholeEventReport(EventReport):
    event_json: JsonObject | None


class EventReportsAnswer(msgspec.Struct, omit_defaults=True):
    event_reports: list[EventReport]
    total: int
    next_token: int | None = None


class UserReport(msgspec.Struct):
    id: int
    received_ts: int
    target_user_id: str | None
    user_id: str
    reason: str


class UserReportsAnswer(msgspec.Struct, omit_defaults=True):
    user_reports: list[UserReport]
    total: int
    next_token: int | None = None


def _event_report(shown: ShownReport) -> EventReport:
    report = shown.report
    return EventReport(
        report.report_id,
        report.received_ts,
        report.room_id,
        report.event_id,
        report.reporter,
        report.score,
        report.reason,
        report.user_id,
        shown.canonical_alias,
        shown.name,
    )


def _user_report(shown: ShownReport) -> UserReport:
    report = shown.report
    return UserReport(
        report.report_id, report.received_ts, report.user_id, report.reporter, report.reason
    )


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise invalid_param("report_id: this is no positive integer.")
    return int(text)


@endpoint("GET", _EVENTS, auth=Auth.ADMIN, rate="read")
async def get_event_reports(query: EventReportsQuery, reports: Reports) -> EventReportsAnswer:
    """A page of the reports of events, the newest first unless it is said otherwise."""
    start, limit = query.bounds()
    wanted = Wanted("event", query.user_id, query.room_id, query.event_sender_user_id)
    found, total = await reports.page(wanted, start, limit, newest_first=query.dir != "f")
    shown = [_event_report(each) for each in found]
    return EventReportsAnswer(shown, total, query.next(total))


@endpoint("GET", f"{_EVENTS}/{{report_id}}", auth=Auth.ADMIN, rate="read")
async def get_event_report(report_id: str, reports: Reports) -> WholeEventReport:
    """A report, and the event."""
    shown, event = await reports.get("event", _number(report_id))
    told = msgspec.structs.asdict(_event_report(shown))
    return WholeEventReport(**told, event_json=event)


@endpoint("DELETE", f"{_EVENTS}/{{report_id}}", auth=Auth.ADMIN, rate="write")
async def delete_event_report(requester: Requester, report_id: str, reports: Reports) -> Empty:
    """Remove a report."""
    await reports.delete("event", _number(report_id))
    audit.record(requester, "delete_event_report", report_id)
    return EMPTY


@endpoint("GET", _USERS, auth=Auth.ADMIN, rate="read")
async def get_user_reports(query: UserReportsQuery, reports: Reports) -> UserReportsAnswer:
    """A page of the reports of users, the newest first unless it is said otherwise."""
    start, limit = query.bounds()
    wanted = Wanted("user", query.user_id, None, query.target_user_id)
    found, total = await reports.page(wanted, start, limit, newest_first=query.dir != "f")
    return UserReportsAnswer([_user_report(each) for each in found], total, query.next(total))


@endpoint("GET", f"{_USERS}/{{report_id}}", auth=Auth.ADMIN, rate="read")
async def get_user_report(report_id: str, reports: Reports) -> UserReport:
    """A report."""
    shown, _ = await reports.get("user", _number(report_id))
    return _user_report(shown)


@endpoint("DELETE", f"{_USERS}/{{report_id}}", auth=Auth.ADMIN, rate="write")
async def delete_user_report(requester: Requester, report_id: str, reports: Reports) -> Empty:
    """Remove a report."""
    await reports.delete("user", _number(report_id))
    audit.record(requester, "delete_user_report", report_id)
    return EMPTY


ENDPOINTS = [
    get_event_reports,
    get_event_report,
    delete_event_report,
    get_user_reports,
    get_user_report,
    delete_user_report,
]
