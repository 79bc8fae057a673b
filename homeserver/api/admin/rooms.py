"""Rooms for administrators, as Synapse's "Rooms" and "Edit Room Membership" APIs have them."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.api.admin import audit
from homeserver.api.client.membership import ViaQuery
from homeserver.core import errors
from homeserver.core.ids import RoomID
from homeserver.rooms.administration import RoomAdministration
from homeserver.rooms.blocking import RoomBlocks
from homeserver.rooms.room_list import RoomDetails, RoomEntry, RoomList, Selection
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_V1 = "/_synapse/admin/v1"
MAX_ROOMS = 1000
"""In one answer."""
_LARGEST = 10

Order = Literal[
    "alphabetical",
    "size",
    "name",
    "canonical_alias",
    "joined_members",
    "joined_local_members",
    "version",
    "creator",
    "encryption",
    "federatable",
    "public",
    "join_rules",
    "guest_access",
    "history_visibility",
    "state_events",
]


class RoomsQuery(msgspec.Struct, frozen=True):
    from_: int = msgspec.field(default=0, name="from")
    limit: int = 100
    order_by: Order = "name"
    dir: Literal["f", "b"] = "f"
    search_term: str | None = None
    public_rooms: bool | None = None
    empty_rooms: bool | None = None


class Room(msgspec.Struct, kw_only=True):
    room_id: str
    name: str | None
    canonical_alias: str | None
    joined_members: int
    joined_local_members: int
    version: str
    creator: str | None
    encryption: str | None
    federatable: bool
    public: bool
    join_rules: str | None
    guest_access: str | None
    history_visibility: str | None
    state_events: int
    room_type: str | None


class DetailedRoom(Room, kw_only=True):
    topic: str | None
    avatar: str | None
    joined_local_devices: int
    forgotten: bool
    tombstoned: bool
    replacement_room: str | None


class Rooms(msgspec.Struct, omit_defaults=True):
    rooms: list[Room]
    offset: int | None
    total_rooms: int | None
    next_batch: int | None = None
    prev_batch: int | None = None


class Members(msgspec.Struct):
    members: list[str]
    total: int


class Block(msgspec.Struct, omit_defaults=True):
    block: bool | None
    user_id: str | None = None


class BlockBody(msgspec.Struct):
    block: bool


class AdminBody(msgspec.Struct):
    user_id: str | None = None


class JoinBody(msgspec.Struct):
    user_id: str


class Joined(msgspec.Struct):
    room_id: str


class ForwardExtremity(msgspec.Struct):
    event_id: str
    state_group: int
    depth: int
    received_ts: int


class ForwardExtremities(msgspec.Struct):
    count: int
    results: list[ForwardExtremity]


class Deleted(msgspec.Struct):
    deleted: int


class RoomSize(msgspec.Struct):
    room_id: str
    estimated_size: int


class RoomSizes(msgspec.Struct):
    rooms: list[RoomSize]


def _room(entry: RoomEntry) -> Room:
    return Room(**entry._asdict())


def _detailed(found: RoomDetails) -> DetailedRoom:
    more = {name: value for name, value in found._asdict().items() if name != "entry"}
    return DetailedRoom(**found.entry._asdict(), **more)


@endpoint("GET", _V1 + "/rooms", auth=Auth.ADMIN, rate="read")
async def list_rooms(query: RoomsQuery, rooms: RoomList) -> Rooms:
    """All rooms that this server is or was in."""
    start, limit = query.from_, min(query.limit, MAX_ROOMS)
    if start < 0 or limit < 0:
        raise errors.invalid_param("`from` and `limit` must not be negative.")
    if query.search_term == "":
        raise errors.invalid_param("search_term cannot be an empty string")
    selection = Selection(
        query.order_by, query.dir == "b", query.search_term, query.public_rooms, query.empty_rooms
    )
    found, total = await rooms.page(selection, start, limit)
    return Rooms(
        [_room(entry) for entry in found],
        start,
        total,
        start + limit if start + limit < total else None,
        max(start - limit, 0) if start > 0 else None,
    )


@endpoint("GET", _V1 + "/rooms/{room_id}", auth=Auth.ADMIN, rate="read")
async def get_room(room_id: RoomID, rooms: RoomList) -> DetailedRoom:
    """What is known of a room."""
    return _detailed(await rooms.details(room_id))


@endpoint("GET", _V1 + "/rooms/{room_id}/members", auth=Auth.ADMIN, rate="read")
async def get_members(room_id: RoomID, rooms: RoomList) -> Members:
    """Who is in a room."""
    found = await rooms.members(room_id)
    return Members(found, len(found))


@endpoint("GET", _V1 + "/rooms/{room_id}/block", auth=Auth.ADMIN, rate="read")
async def get_block(room_id: RoomID, blocks: RoomBlocks) -> Block:
    """Whether a room is blocked."""
    user_id = await blocks.blocked_by(room_id)
    return Block(user_id is not None, user_id)


@endpoint("PUT", _V1 + "/rooms/{room_id}/block", auth=Auth.ADMIN, rate="write")
async def put_block(
    requester: Requester, room_id: RoomID, body: BlockBody, blocks: RoomBlocks
) -> Block:
    """Block a room, or let users enter it again."""
    if body.block:
        await blocks.block(room_id, requester.user_id)
    else:
        await blocks.unblock(room_id)
    audit.record(requester, "block_room" if body.block else "unblock_room", room_id)
    return Block(body.block)


@endpoint(
    "POST",
    _V1 + "/rooms/{room_or_alias}/make_room_admin",
    auth=Auth.ADMIN,
    rate="write",
    optional_body=True,
)
async def make_room_admin(
    requester: Requester, room_or_alias: str, body: AdminBody, rooms: RoomAdministration
) -> Empty:
    """Make somebody an administrator of a room."""
    await rooms.make_admin(requester, room_or_alias, body.user_id)
    audit.record(
        requester, "make_room_admin", room_or_alias, user=body.user_id or requester.user_id
    )
    return EMPTY


@endpoint("GET", _V1 + "/rooms/{room_or_alias}/forward_extremities", auth=Auth.ADMIN, rate="read")
async def get_forward_extremities(
    room_or_alias: str, rooms: RoomAdministration
) -> ForwardExtremities:
    """The heads of a room."""
    found = [ForwardExtremity(*each) for each in await rooms.extremities(room_or_alias)]
    return ForwardExtremities(len(found), found)


@endpoint(
    "DELETE", _V1 + "/rooms/{room_or_alias}/forward_extremities", auth=Auth.ADMIN, rate="write"
)
async def delete_forward_extremities(
    requester: Requester, room_or_alias: str, rooms: RoomAdministration
) -> Deleted:
    """Bring the heads of a room together."""
    deleted = await rooms.merge(room_or_alias)
    audit.record(requester, "delete_forward_extremities", room_or_alias, deleted=deleted)
    return Deleted(deleted)


@endpoint("POST", _V1 + "/join/{room_or_alias}", auth=Auth.ADMIN, rate="write")
async def join_room(
    requester: Requester,
    room_or_alias: str,
    query: ViaQuery,
    body: JoinBody,
    rooms: RoomAdministration,
) -> Joined:
    """Have a user join a room."""
    room_id = await rooms.join(requester, body.user_id, room_or_alias, query.servers)
    audit.record(requester, "join_room", room_id, user=body.user_id)
    return Joined(room_id)


@endpoint("GET", _V1 + "/statistics/database/rooms", auth=Auth.ADMIN, rate="read")
async def get_largest_rooms(rooms: RoomList) -> RoomSizes:
    """The rooms that take the most space in the database."""
    return RoomSizes([RoomSize(*each) for each in await rooms.largest(_LARGEST)])


ENDPOINTS = [
    list_rooms,
    get_room,
    get_members,
    get_block,
    put_block,
    make_room_admin,
    get_forward_extremities,
    delete_forward_extremities,
    join_room,
    get_largest_rooms,
]
