"""Rooms that other servers may know of.

Server-server API, "Published room directory", "Spaces".
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from homeserver.core.ids import RoomID, ServerName
from homeserver.core.types import JsonObject
from homeserver.rooms.description import RoomDescription
from homeserver.rooms.hierarchy import SpaceHierarchy
from homeserver.rooms.published import Page, PublishedRooms, Wanted
from homeserver.web.endpoint import Auth, endpoint

_V1 = "/_matrix/federation/v1"
_LISTED = ("room_version", "encryption", "allowed_room_ids")
"""What spaces tell of a room, and the directory does not."""

Limit = Annotated[int, msgspec.Meta(ge=0)]


class ListQuery(msgspec.Struct, frozen=True):
    limit: Limit | None = None
    since: str | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


class RoomFilter(msgspec.Struct, frozen=True):
    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class ListBody(msgspec.Struct, frozen=True):
    limit: Limit | None = None
    since: str | None = None
    filter: RoomFilter | None = None
    include_all_networks: bool | None = None
    third_party_instance_id: str | None = None


class RoomList(msgspec.Struct, frozen=True, omit_defaults=True):
    chunk: list[JsonObject]
    total_room_count_estimate: int
    next_batch: str | None = None
    prev_batch: str | None = None


class SpaceQuery(msgspec.Struct, frozen=True):
    suggested_only: bool = False


class ServedSpace(msgspec.Struct, frozen=True):
    room: JsonObject
    children: list[JsonObject]
    inaccessible_children: list[str]


def _fields(room: RoomDescription) -> JsonObject:
    values = {
        "room_id": room.room_id,
        "num_joined_members": room.num_joined_members,
        "world_readable": room.world_readable,
        "guest_can_join": room.guest_can_join,
        "join_rule": room.join_rule,
        "name": room.name,
        "topic": room.topic,
        "canonical_alias": room.canonical_alias,
        "avatar_url": room.avatar_url,
        "room_type": room.room_type,
        "room_version": room.room_version,
        "encryption": room.encryption,
        "allowed_room_ids": list(room.allowed_room_ids) or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _answer(page: Page) -> RoomList:
    rooms = [_fields(room) for room in page.rooms]
    chunk = [{key: room[key] for key in room if key not in _LISTED} for room in rooms]
    return RoomList(chunk, page.total, page.next_batch, page.prev_batch)


@endpoint("GET", f"{_V1}/publicRooms", auth=Auth.FEDERATION, rate="federation")
async def list_public_rooms(
    origin: ServerName, query: ListQuery, published: PublishedRooms
) -> RoomList:
    """The rooms on this server's list."""
    wanted = Wanted(
        limit=query.limit,
        since=query.since or None,
        instance_id=query.third_party_instance_id or None,
        all_networks=query.include_all_networks,
    )
    return _answer(await published.served_page(wanted))


@endpoint("POST", f"{_V1}/publicRooms", auth=Auth.FEDERATION, rate="federation")
async def find_public_rooms(
    origin: ServerName, body: ListBody, published: PublishedRooms
) -> RoomList:
    """Those rooms on this server's list that pass a filter."""
    chosen = body.filter or RoomFilter()
    wanted = Wanted(
        limit=body.limit,
        since=body.since or None,
        term=chosen.generic_search_term,
        room_types=chosen.room_types,
        instance_id=body.third_party_instance_id or None,
        all_networks=bool(body.include_all_networks),
    )
    return _answer(await published.served_page(wanted))


@endpoint(
    "GET",
    f"{_V1}/hierarchy/{{room_id}}",
    auth=Auth.FEDERATION,
    rate="federation_heavy",
    also=("/_matrix/federation/unstable/org.matrix.msc2946/hierarchy/{room_id}",),
)
async def serve_hierarchy(
    origin: ServerName, room_id: RoomID, query: SpaceQuery, spaces: SpaceHierarchy
) -> ServedSpace:
    """A space and the rooms in it."""
    found = await spaces.serve(origin, room_id, suggested_only=query.suggested_only)
    root = found.room
    return ServedSpace(
        {**_fields(root.room), "children_state": list(root.children_state)},
        [_fields(child) for child in found.children],
        list(found.inaccessible),
    )


ENDPOINTS = [list_public_rooms, find_public_rooms, serve_hierarchy]
