"""Getting events for a room (client-server API, same heading)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeserver.core import canonical, errors
from homeserver.core.filters import (
    NO_ROOM_EVENT_FILTER,
    RoomEventFilter,
    parse_room_event_filter,
)
from homeserver.core.ids import EventID, RoomID, UserID
from homeserver.core.tokens import parse_room_token
from homeserver.core.types import JsonObject
from homeserver.rooms.mutual import MutualRooms
from homeserver.rooms.read import Reading
from homeserver.rooms.timeline import DEFAULT_LIMIT, RoomToken, Timeline
from homeserver.rooms.unredacted import UnredactedEvents
from homeserver.web.endpoint import Auth, Requester, endpoint

_ROOM = "/_matrix/client/v3/rooms/{room_id}"

Limit = Annotated[int, msgspec.Meta(ge=0)]
Direction = Literal["b", "f"]
Membership = Literal["join", "invite", "knock", "leave", "ban"]


def token_of(text: str | None) -> RoomToken | None:
    """The token of a query parameter; an empty one counts as none.

    Raises MatrixError 400 `M_INVALID_PARAM`.
    """
    return parse_room_token(text) if text else None


def filter_of(text: str | None) -> RoomEventFilter:
    """The filter of a query parameter. Raises MatrixError 400."""
    if not text:
        return NO_ROOM_EVENT_FILTER
    try:
        source = canonical.parse(text)
    except canonical.NotJSON:
        raise errors.not_json("`filter` is not JSON.")
    return parse_room_event_filter(source)


class MessagesQuery(msgspec.Struct, frozen=True):
    dir: Direction
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    limit: Limit | None = None
    filter: str | None = None


class Messages(msgspec.Struct, frozen=True):
    start: str
    chunk: list[JsonObject]
    end: str | None = None
    state: list[JsonObject] | None = None


@endpoint("GET", f"{_ROOM}/messages", auth=Auth.GUEST_OK, rate="read", returns=Messages)
async def messages(
    requester: Requester, room_id: RoomID, query: MessagesQuery, timeline: Timeline
) -> JsonObject:
    """A page of a room's history."""
    wanted = filter_of(query.filter)
    limit = query.limit if query.limit is not None else wanted.limit
    return await timeline.messages(
        requester,
        room_id,
        backwards=query.dir == "b",
        start=token_of(query.from_),
        end=token_of(query.to),
        limit=DEFAULT_LIMIT if limit is None else limit,
        wanted=wanted,
    )


class EventQuery(msgspec.Struct, frozen=True):
    """`unredacted`: show what it said before it was redacted (MSC2815)."""

    unredacted: bool = msgspec.field(
        default=False, name="fi.mau.msc2815.include_unredacted_content"
    )


@endpoint("GET", f"{_ROOM}/event/{{event_id}}", auth=Auth.GUEST_OK, rate="read")
async def get_event(
    requester: Requester,
    room_id: RoomID,
    event_id: EventID,
    query: EventQuery,
    reading: Reading,
    unredacted: UnredactedEvents,
) -> JsonObject:
    """One event."""
    if query.unredacted:
        return await unredacted.event(requester, room_id, event_id)
    return await reading.event(requester, room_id, event_id)


@endpoint("GET", f"{_ROOM}/state", auth=Auth.GUEST_OK, rate="read", returns=list[JsonObject])
async def get_state(requester: Requester, room_id: RoomID, reading: Reading) -> msgspec.Raw:
    """The state of a room."""
    return await reading.state(requester, room_id)


class StateQuery(msgspec.Struct, frozen=True):
    format: Literal["content", "event"] = "content"


@endpoint(
    "GET",
    f"{_ROOM}/state/{{event_type}}/{{state_key}}",
    auth=Auth.GUEST_OK,
    rate="read",
    also=(f"{_ROOM}/state/{{event_type}}", f"{_ROOM}/state/{{event_type}}/"),
)
async def get_state_event(
    requester: Requester,
    room_id: RoomID,
    event_type: str,
    query: StateQuery,
    reading: Reading,
    state_key: str = "",
) -> JsonObject:
    """One piece of the state of a room: its content, or the whole event."""
    event = await reading.state_event(requester, room_id, event_type, state_key)
    content: JsonObject = event["content"]
    return content if query.format == "content" else event


class MembersQuery(msgspec.Struct, frozen=True):
    at: str | None = None
    membership: Membership | None = None
    not_membership: Membership | None = None


class Members(msgspec.Struct, frozen=True):
    chunk: list[JsonObject]


@endpoint("GET", f"{_ROOM}/members", auth=Auth.GUEST_OK, rate="read", returns=Members)
async def get_members(
    requester: Requester, room_id: RoomID, query: MembersQuery, reading: Reading
) -> JsonObject:
    """The member events of a room."""
    return {
        "chunk": await reading.members(
            requester,
            room_id,
            at=token_of(query.at),
            membership=query.membership,
            not_membership=query.not_membership,
        )
    }


class JoinedMembers(msgspec.Struct, frozen=True):
    joined: dict[str, dict[str, str]]


@endpoint("GET", f"{_ROOM}/joined_members", auth=Auth.GUEST_OK, rate="read")
async def get_joined_members(
    requester: Requester, room_id: RoomID, reading: Reading
) -> JoinedMembers:
    """Who is in a room, with names and avatars."""
    return JoinedMembers(await reading.joined_members(requester, room_id))


class MutualRoomsQuery(msgspec.Struct, frozen=True):
    user_id: UserID
    from_: str | None = msgspec.field(name="from", default=None)


class MutualRoomsAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    joined: list[str]
    count: int
    next_batch: str | None = None


@endpoint("GET", "/_matrix/client/v1/mutual_rooms", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_mutual_rooms(
    requester: Requester, query: MutualRoomsQuery, mutual_rooms: MutualRooms
) -> MutualRoomsAnswer:
    """Rooms shared with another user."""
    found = await mutual_rooms.find(requester.user_id, query.user_id, query.from_ or None)
    return MutualRoomsAnswer(*found)


class OldMutualRoomsQuery(msgspec.Struct, frozen=True):
    user_id: UserID
    batch_token: str | None = None


class OldMutualRoomsAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    joined: list[str]
    count: int
    next_batch_token: str | None = None


@endpoint(
    "GET",
    "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
)
async def get_mutual_rooms_unstable(
    requester: Requester, query: OldMutualRoomsQuery, mutual_rooms: MutualRooms
) -> OldMutualRoomsAnswer:
    """Rooms shared with another user, by the names of before version 1.19 (MSC2666)."""
    found = await mutual_rooms.find(requester.user_id, query.user_id, query.batch_token or None)
    return OldMutualRoomsAnswer(*found)


ENDPOINTS = [
    messages,
    get_event,
    get_state,
    get_state_event,
    get_members,
    get_joined_members,
    get_mutual_rooms,
    get_mutual_rooms_unstable,
]
