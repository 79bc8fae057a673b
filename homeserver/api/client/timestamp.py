"""Jumping to a date (client-server API, `GET /rooms/{roomId}/timestamp_to_event`)."""

from __future__ import annotations

import msgspec

from homeserver.api.client.reading import Direction
from homeserver.core.ids import RoomID
from homeserver.rooms.timestamp import EventsByTime
from homeserver.web.endpoint import Auth, Requester, endpoint


class TimeQuery(msgspec.Struct, frozen=True):
    ts: int
    dir: Direction


class EventAtTime(msgspec.Struct, frozen=True):
    event_id: str
    origin_server_ts: int


@endpoint(
    "GET",
    "/_matrix/client/v1/rooms/{room_id}/timestamp_to_event",
    auth=Auth.GUEST_OK,
    rate="read",
    also=("/_matrix/client/unstable/org.matrix.msc3030/rooms/{room_id}/timestamp_to_event",),
)
async def timestamp_to_event(
    requester: Requester, room_id: RoomID, query: TimeQuery, by_time: EventsByTime
) -> EventAtTime:
    """The event nearest to a time."""
    found = await by_time.nearest(requester, room_id, query.ts, backwards=query.dir == "b")
    return EventAtTime(*found)


ENDPOINTS = [timestamp_to_event]
