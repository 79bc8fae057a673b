"""Looking into rooms without being there, as Synapse's administration API has it.

The endpoints are those of clients under other paths, for readers who see everything.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from homeserver.api.client.context import Context, ContextQuery
from homeserver.api.client.hierarchy import (
    Hierarchy,
    HierarchyQuery,
    HierarchyRoom,
    fields_of,
)
from homeserver.api.client.reading import Direction, Limit, Messages, filter_of, token_of
from homeserver.api.client.timestamp import EventAtTime
from homeserver.core.ids import EventID, RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.administration import RoomAdministration
from homeserver.rooms.context import EventContext
from homeserver.rooms.hierarchy import SpaceHierarchy
from homeserver.rooms.read import Reading
from homeserver.rooms.room_list import RoomList
from homeserver.rooms.timeline import DEFAULT_LIMIT, Timeline
from homeserver.rooms.timestamp import EventsByTime
from homeserver.web.endpoint import Auth, Requester, endpoint

_ROOM = "/_synapse/admin/v1/rooms/{room_id}"


class HistoryQuery(msgspec.Struct, frozen=True):
    dir: Direction = "f"
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    limit: Limit | None = None
    filter: str | None = None


class MomentQuery(msgspec.Struct, frozen=True):
    ts: int
    dir: Direction = "f"


class StateQuery(msgspec.Struct, frozen=True):
    type: str | None = None


class RoomState(msgspec.Struct):
    state: list[JsonObject]


class FetchedEvent(msgspec.Struct):
    event: JsonObject


def _seeing_everything(requester: Requester) -> Requester:
    return replace(requester, sees_everything=True)


@endpoint("GET", _ROOM + "/state", auth=Auth.ADMIN, rate="read")
async def get_admin_state(
    requester: Requester, room_id: RoomID, query: StateQuery, reading: Reading, rooms: RoomList
) -> RoomState:
    """The state of a room."""
    await rooms.members(room_id)  # 404 for a room that is not known
    text = await reading.state(_seeing_everything(requester), room_id)
    found = msgspec.json.decode(text, type=list[JsonObject])
    return RoomState([event for event in found if query.type in (None, "", event["type"])])


@endpoint("GET", _ROOM + "/messages", auth=Auth.ADMIN, rate="read", returns=Messages)
async def get_admin_messages(
    requester: Requester, room_id: RoomID, query: HistoryQuery, timeline: Timeline
) -> JsonObject:
    """A page of the history of a room."""
    wanted = filter_of(query.filter)
    limit = query.limit if query.limit is not None else wanted.limit
    return await timeline.messages(
        _seeing_everything(requester),
        room_id,
        backwards=query.dir == "b",
        start=token_of(query.from_),
        end=token_of(query.to),
        limit=DEFAULT_LIMIT if limit is None else limit,
        wanted=wanted,
    )


@endpoint("GET", _ROOM + "/context/{event_id}", auth=Auth.ADMIN, rate="read", returns=Context)
async def get_admin_context(
    requester: Requester,
    room_id: RoomID,
    event_id: EventID,
    query: ContextQuery,
    context: EventContext,
) -> JsonObject:
    """An event with those before and after it."""
    wanted = filter_of(query.filter)
    limit = query.limit if query.limit is not None else wanted.limit
    return await context.around(
        _seeing_everything(requester),
        room_id,
        event_id,
        limit=DEFAULT_LIMIT if limit is None else limit,
        wanted=wanted,
    )


@endpoint("GET", _ROOM + "/timestamp_to_event", auth=Auth.ADMIN, rate="read")
async def admin_timestamp_to_event(
    requester: Requester, room_id: RoomID, query: MomentQuery, by_time: EventsByTime
) -> EventAtTime:
    """The event nearest to a time."""
    found = await by_time.nearest(
        _seeing_everything(requester), room_id, query.ts, backwards=query.dir == "b"
    )
    return EventAtTime(*found)


@endpoint("GET", _ROOM + "/hierarchy", auth=Auth.ADMIN, rate="read")
async def get_admin_hierarchy(
    requester: Requester, room_id: RoomID, query: HierarchyQuery, spaces: SpaceHierarchy
) -> Hierarchy:
    """A page of the rooms of a space that this server knows."""
    page = await spaces.page(
        requester.user_id,
        room_id,
        limit=query.limit,
        max_depth=query.max_depth,
        token=query.from_,
        everything_here=True,
    )
    return Hierarchy(
        [
            HierarchyRoom(**fields_of(found.room), children_state=list(found.children_state))
            for found in page.rooms
        ],
        page.next_batch,
    )


@endpoint("GET", "/_synapse/admin/v1/fetch_event/{event_id}", auth=Auth.ADMIN, rate="read")
async def fetch_event(event_id: EventID, rooms: RoomAdministration) -> FetchedEvent:
    """Any event that this server has."""
    return FetchedEvent(await rooms.event(event_id))


ENDPOINTS = [
    get_admin_state,
    get_admin_messages,
    get_admin_context,
    admin_timestamp_to_event,
    get_admin_hierarchy,
    fetch_event,
]
