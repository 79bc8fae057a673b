"""Events and states for other servers.

Server-server API, "Backfilling and retrieving missing events", "Retrieving events", "Retrieving
event authorization information".
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeserver.core.ids import EventID, RoomID, ServerName
from homeserver.rooms.served_history import ServedHistory
from homeserver.web.endpoint import Auth, RawJson, endpoint

_V1 = "/_matrix/federation/v1"

Count = Annotated[int, msgspec.Meta(ge=1)]
Few = Annotated[list[EventID], msgspec.Meta(max_length=500)]
"""More event IDs than a room has heads or holes; a request with more is refused."""


class AtEvent(msgspec.Struct, frozen=True):
    event_id: EventID


class BackfillQuery(msgspec.Struct, frozen=True):
    v: Annotated[list[EventID], msgspec.Meta(min_length=1, max_length=100)]
    limit: Count


class MissingBody(msgspec.Struct, frozen=True):
    earliest_events: Few
    latest_events: Few
    limit: Annotated[int, msgspec.Meta(ge=0)] = 10
    min_depth: int = 0


class TimeQuery(msgspec.Struct, frozen=True):
    ts: int
    dir: Literal["f", "b"]


class EventAtTime(msgspec.Struct, frozen=True):
    event_id: str
    origin_server_ts: int


@endpoint("GET", f"{_V1}/event/{{event_id}}", auth=Auth.FEDERATION, rate="federation")
async def get_event(origin: ServerName, event_id: EventID, history: ServedHistory) -> RawJson:
    """One event."""
    return RawJson(await history.event(origin, event_id))


@endpoint("GET", f"{_V1}/state/{{room_id}}", auth=Auth.FEDERATION, rate="federation_heavy")
async def get_state(
    origin: ServerName, room_id: RoomID, query: AtEvent, history: ServedHistory
) -> RawJson:
    """The state before an event, and its auth chain."""
    return RawJson(await history.state(origin, room_id, query.event_id))


@endpoint("GET", f"{_V1}/state_ids/{{room_id}}", auth=Auth.FEDERATION, rate="federation_heavy")
async def get_state_ids(
    origin: ServerName, room_id: RoomID, query: AtEvent, history: ServedHistory
) -> RawJson:
    """The state before an event, and its auth chain: the IDs of the events."""
    return RawJson(await history.state_ids(origin, room_id, query.event_id))


@endpoint(
    "GET",
    f"{_V1}/event_auth/{{room_id}}/{{event_id}}",
    auth=Auth.FEDERATION,
    rate="federation_heavy",
)
async def get_event_auth(
    origin: ServerName, room_id: RoomID, event_id: EventID, history: ServedHistory
) -> RawJson:
    """The auth chain of an event."""
    return RawJson(await history.event_auth(origin, room_id, event_id))


@endpoint("GET", f"{_V1}/backfill/{{room_id}}", auth=Auth.FEDERATION, rate="federation_heavy")
async def get_backfill(
    origin: ServerName, room_id: RoomID, query: BackfillQuery, history: ServedHistory
) -> RawJson:
    """Events and what came before them."""
    return RawJson(await history.backfill(origin, room_id, query.v, query.limit))


@endpoint(
    "POST", f"{_V1}/get_missing_events/{{room_id}}", auth=Auth.FEDERATION, rate="federation_heavy"
)
async def post_get_missing_events(
    origin: ServerName, room_id: RoomID, body: MissingBody, history: ServedHistory
) -> RawJson:
    """Events between those that a server has."""
    return RawJson(
        await history.missing(
            origin,
            room_id,
            earliest=body.earliest_events,
            latest=body.latest_events,
            limit=body.limit,
            min_depth=body.min_depth,
        )
    )


@endpoint(
    "GET", f"{_V1}/timestamp_to_event/{{room_id}}", auth=Auth.FEDERATION, rate="federation_heavy"
)
async def get_timestamp_to_event(
    origin: ServerName, room_id: RoomID, query: TimeQuery, history: ServedHistory
) -> EventAtTime:
    """The event nearest to a time."""
    found = await history.by_time(origin, room_id, query.ts, backwards=query.dir == "b")
    return EventAtTime(*found)


ENDPOINTS = [
    get_event,
    get_state,
    get_state_ids,
    get_event_auth,
    get_backfill,
    post_get_missing_events,
    get_timestamp_to_event,
]
