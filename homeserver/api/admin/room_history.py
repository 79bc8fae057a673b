"""Purging rooms' histories, as Synapse's "Purge History API" has it."""

from __future__ import annotations

import msgspec

from homeserver.api.admin import audit
from homeserver.core import errors
from homeserver.core.ids import EventID, RoomID
from homeserver.rooms.purge import HistoryPurge, Point
from homeserver.web.endpoint import Auth, Requester, endpoint
from storage.room_tasks import COMPLETE, FAILED

_PATH = "/_synapse/admin/v1/purge_history"


class PurgeBody(msgspec.Struct):
    delete_local_events: bool = False
    purge_up_to_event_id: str | None = None
    purge_up_to_ts: int | None = None


class PurgeAnswer(msgspec.Struct):
    purge_id: str


class PurgeStatus(msgspec.Struct, omit_defaults=True):
    status: str
    error: str | None = None


async def _begin(
    requester: Requester,
    purges: HistoryPurge,
    room_id: str,
    body: PurgeBody,
    event_id: str | None,
) -> PurgeAnswer:
    if event_id is None:
        event_id = body.purge_up_to_event_id
    if event_id is None and body.purge_up_to_ts is None:
        raise errors.missing_param("purge_up_to_event_id or purge_up_to_ts")
    point = Point(event_id, body.purge_up_to_ts)
    purge_id = await purges.purge_before(
        room_id, point, delete_local_events=body.delete_local_events
    )
    audit.record(requester, "purge_history", room_id, delete_local_events=body.delete_local_events)
    return PurgeAnswer(purge_id)


@endpoint("POST", _PATH + "/{room_id}", auth=Auth.ADMIN, rate="write", optional_body=True)
async def purge_history(
    requester: Requester, room_id: RoomID, body: PurgeBody, purges: HistoryPurge
) -> PurgeAnswer:
    """Purge what comes before an event or a time."""
    return await _begin(requester, purges, room_id, body, None)


@endpoint(
    "POST", _PATH + "/{room_id}/{event_id}", auth=Auth.ADMIN, rate="write", optional_body=True
)
async def purge_history_before(
    requester: Requester,
    room_id: RoomID,
    event_id: EventID,
    body: PurgeBody,
    purges: HistoryPurge,
) -> PurgeAnswer:
    """Purge what comes before an event."""
    return await _begin(requester, purges, room_id, body, event_id)


@endpoint("GET", "/_synapse/admin/v1/purge_history_status/{purge_id}", auth=Auth.ADMIN, rate="read")
async def get_purge_status(purge_id: str, purges: HistoryPurge) -> PurgeStatus:
    """How far a purge is."""
    task = await purges.get(purge_id)
    if task is None:
        raise errors.not_found(f"purge id '{purge_id}' not found")
    return PurgeStatus(task.status if task.status in (COMPLETE, FAILED) else "active", task.error)


ENDPOINTS = [purge_history, purge_history_before, get_purge_status]
