"""Reporting content (Client-server API, "Reporting Content")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.core.ids import EventID, RoomID, UserID
from homeserver.rooms.reports import Reports
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_BASE = "/_matrix/client/v3"


class Reason(msgspec.Struct, frozen=True):
    reason: str


class EventReason(msgspec.Struct, frozen=True):
    """`score` was there before version 1.18: from 0 to -100, how bad it is."""

    reason: str | None = None
    score: Any = None


@endpoint("POST", f"{_BASE}/rooms/{{room_id}}/report", auth=Auth.ACCESS_TOKEN, rate="write")
async def report_room(
    requester: Requester, room_id: RoomID, body: Reason, reports: Reports
) -> Empty:
    """Report a room to the administrators."""
    await reports.report_room(requester, room_id, body.reason)
    return EMPTY


@endpoint(
    "POST",
    f"{_BASE}/rooms/{{room_id}}/report/{{event_id}}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    optional_body=True,
)
async def report_event(
    requester: Requester, room_id: RoomID, event_id: EventID, body: EventReason, reports: Reports
) -> Empty:
    """Report an event to the administrators."""
    score = min(max(body.score, -100), 0) if type(body.score) is int else None
    await reports.report_event(requester, room_id, event_id, body.reason or "", score)
    return EMPTY


@endpoint("POST", f"{_BASE}/users/{{user_id}}/report", auth=Auth.ACCESS_TOKEN, rate="write")
async def report_user(
    requester: Requester, user_id: UserID, body: Reason, reports: Reports
) -> Empty:
    """Report a user to the administrators."""
    await reports.report_user(requester, user_id, body.reason)
    return EMPTY


ENDPOINTS = [report_room, report_event, report_user]
