"""Rooms of spaces (client-server API, "Spaces")."""

from __future__ import annotations

from typing import Annotated

import msgspec

from homeserver.core.ids import RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.description import RoomDescription
from homeserver.rooms.hierarchy import SpaceHierarchy
from homeserver.web.endpoint import Auth, Requester, endpoint


class HierarchyQuery(msgspec.Struct, frozen=True):
    suggested_only: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_depth: Annotated[int, msgspec.Meta(ge=0)] | None = None
    from_: str | None = msgspec.field(default=None, name="from")


class DescribedRoom(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A room as spaces show it."""

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
    room_version: str | None = None
    encryption: str | None = None
    allowed_room_ids: list[str] | None = None


class HierarchyRoom(DescribedRoom, frozen=True, omit_defaults=True, kw_only=True):
    children_state: list[JsonObject]


class Hierarchy(msgspec.Struct, frozen=True, omit_defaults=True):
    rooms: list[HierarchyRoom]
    next_batch: str | None = None


def fields_of(room: RoomDescription) -> JsonObject:
    """The values of a `DescribedRoom`."""
    return {
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


@endpoint(
    "GET",
    "/_matrix/client/v1/rooms/{room_id}/hierarchy",
    auth=Auth.GUEST_OK,
    rate="read",
    also=("/_matrix/client/unstable/org.matrix.msc2946/rooms/{room_id}/hierarchy",),
)
async def get_hierarchy(
    requester: Requester, room_id: RoomID, query: HierarchyQuery, spaces: SpaceHierarchy
) -> Hierarchy:
    """A page of the rooms of a space."""
    page = await spaces.page(
        requester.user_id,
        room_id,
        suggested_only=query.suggested_only,
        limit=query.limit,
        max_depth=query.max_depth,
        token=query.from_,
    )
    return Hierarchy(
        [
            HierarchyRoom(**fields_of(found.room), children_state=list(found.children_state))
            for found in page.rooms
        ],
        page.next_batch,
    )


ENDPOINTS = [get_hierarchy]
