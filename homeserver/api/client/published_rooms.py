"""The published room directory (client-server API, "Published room directory")."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.core import errors
from homeserver.core.ids import RoomID, ServerName
from homeserver.rooms.description import RoomDescription
from homeserver.rooms.published import Page, PublishedRooms, Wanted
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_LIST = "/_matrix/client/v3/directory/list/room/{room_id}"


class ListQuery(msgspec.Struct, frozen=True):
    limit: int | None = None
    since: str | None = None
    server: ServerName | None = None


class ServerQuery(msgspec.Struct, frozen=True):
    server: ServerName | None = None


class RoomFilter(msgspec.Struct, frozen=True):
    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class ListBody(msgspec.Struct, frozen=True):
    limit: int | None = None
    since: str | None = None
    filter: RoomFilter | None = None
    include_all_networks: bool | None = None
    third_party_instance_id: str | None = None


class ListedRoom(msgspec.Struct, frozen=True, omit_defaults=True):
    """Has the specification's keys alone: there are clients that stumble over others."""

    room_id: str
    num_joined_members: int
    world_readable: bool
    guest_can_join: bool
    join_rule: str
    name: str | None = None
    topic: str | None = None
    canonical_alias: str | None = None
    avatar_url: str | None = None
    room_type: str | None = None


class RoomList(msgspec.Struct, frozen=True, omit_defaults=True):
    chunk: list[ListedRoom]
    total_room_count_estimate: int
    next_batch: str | None = None
    prev_batch: str | None = None


class Visibility(msgspec.Struct, frozen=True):
    visibility: Literal["public", "private"] = "public"


def listed_room(room: RoomDescription) -> ListedRoom:
    """A room as directories show it."""
    return ListedRoom(
        room_id=room.room_id,
        num_joined_members=room.num_joined_members,
        world_readable=room.world_readable,
        guest_can_join=room.guest_can_join,
        join_rule=room.join_rule,
        name=room.name,
        topic=room.topic,
        canonical_alias=room.canonical_alias,
        avatar_url=room.avatar_url,
        room_type=room.room_type,
    )


def _answer(page: Page) -> RoomList:
    return RoomList(
        [listed_room(room) for room in page.rooms], page.total, page.next_batch, page.prev_batch
    )


@endpoint(
    "GET",
    "/_matrix/client/v3/publicRooms",
    auth=Auth.OPTIONAL_ACCESS_TOKEN,
    rate="read",
)
async def get_public_rooms(
    requester: Requester | None, query: ListQuery, published: PublishedRooms
) -> RoomList:
    """List published rooms."""
    wanted = Wanted(limit=query.limit, since=query.since or None)
    return _answer(await published.page(requester, wanted, query.server))


@endpoint(
    "POST",
    "/_matrix/client/v3/publicRooms",
    auth=Auth.OPTIONAL_ACCESS_TOKEN,
    rate="read",
    optional_body=True,
)
async def search_public_rooms(
    requester: Requester | None, query: ServerQuery, body: ListBody, published: PublishedRooms
) -> RoomList:
    """List those published rooms that pass a filter."""
    chosen = body.filter or RoomFilter()
    wanted = Wanted(
        limit=body.limit,
        since=body.since or None,
        term=chosen.generic_search_term,
        room_types=chosen.room_types,
        instance_id=body.third_party_instance_id or None,
        all_networks=bool(body.include_all_networks),
    )
    return _answer(await published.page(requester, wanted, query.server))


@endpoint("GET", _LIST, auth=Auth.NONE, rate="read")
async def get_listed(room_id: RoomID, published: PublishedRooms) -> Visibility:
    """Whether a room is published."""
    shown = await published.visibility(room_id)
    return Visibility("public" if shown == "public" else "private")


@endpoint(
    "PUT", _LIST, auth=Auth.ACCESS_TOKEN, rate="write", optional_body=True, refuse_suspended=True
)
async def put_listed(
    requester: Requester, room_id: RoomID, body: Visibility, published: PublishedRooms
) -> Empty:
    """Publish a room, or take it off the list."""
    await published.set_visibility(requester, room_id, body.visibility)
    return EMPTY


@endpoint(
    "PUT",
    "/_matrix/client/v3/directory/list/appservice/{network_id}/{room_id}",
    auth=Auth.APPSERVICE,
    rate="write",
)
async def put_listed_in_network(
    requester: Requester,
    network_id: str,
    room_id: RoomID,
    body: Visibility,
    published: PublishedRooms,
) -> Empty:
    """Publish a room in the list of a bridged network, or take it off."""
    if requester.appservice_id is None:
        raise errors.forbidden("Only application services keep lists of networks.")
    await published.set_in_network(requester.appservice_id, network_id, room_id, body.visibility)
    return EMPTY


ENDPOINTS = [
    get_public_rooms,
    search_public_rooms,
    get_listed,
    put_listed,
    put_listed_in_network,
]
