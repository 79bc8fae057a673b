"""Room summaries (client-server API, "Room summaries"; older clients: MSC3266)."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.api.client.membership import find_room
from homeserver.core.ids import ServerName
from homeserver.rooms.remote_aliases import RoomFinder
from homeserver.rooms.summary import RoomSummaries
from homeserver.web.endpoint import Auth, Requester, endpoint


class ViaQuery(msgspec.Struct, frozen=True):
    via: list[ServerName] | None = None


class _Common(msgspec.Struct, frozen=True, omit_defaults=True):
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
    membership: str | None = None
    allowed_room_ids: list[str] | None = None


class RoomSummary(_Common, frozen=True, omit_defaults=True):
    room_version: str | None = None
    encryption: str | None = None


class OldRoomSummary(_Common, frozen=True, omit_defaults=True):
    """The answer before the endpoint was specified. Clients take the new names for repeated ones,
    so that only the old are given."""

    room_version: str | None = msgspec.field(default=None, name="im.nheko.summary.room_version")
    encryption: str | None = msgspec.field(default=None, name="im.nheko.summary.encryption")


async def _fields(
    requester: Requester | None,
    room_id_or_alias: str,
    query: ViaQuery,
    finder: RoomFinder,
    summaries: RoomSummaries,
) -> dict[str, Any]:
    found = await find_room(room_id_or_alias, finder)
    reader_id = requester.user_id if requester is not None else None
    via = [*(query.via or ()), *found.servers]
    summary = await summaries.get(found.room_id, reader_id, via)
    room = summary.room
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
        "membership": None if requester is None else summary.membership or "leave",
        "allowed_room_ids": list(room.allowed_room_ids) or None,
        "room_version": room.room_version,
        "encryption": room.encryption,
    }


@endpoint(
    "GET",
    "/_matrix/client/v1/room_summary/{room_id_or_alias}",
    auth=Auth.OPTIONAL_ACCESS_TOKEN,
    rate="read",
)
async def get_room_summary(
    requester: Requester | None,
    room_id_or_alias: str,
    query: ViaQuery,
    finder: RoomFinder,
    summaries: RoomSummaries,
) -> RoomSummary:
    """What a room is, before joining it."""
    return RoomSummary(**await _fields(requester, room_id_or_alias, query, finder, summaries))


@endpoint(
    "GET",
    "/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}",
    auth=Auth.OPTIONAL_ACCESS_TOKEN,
    rate="read",
    also=("/_matrix/client/unstable/im.nheko.summary/rooms/{room_id_or_alias}/summary",),
)
async def get_old_room_summary(
    requester: Requester | None,
    room_id_or_alias: str,
    query: ViaQuery,
    finder: RoomFinder,
    summaries: RoomSummaries,
) -> OldRoomSummary:
    """As `get_room_summary`, for older clients."""
    return OldRoomSummary(**await _fields(requester, room_id_or_alias, query, finder, summaries))


ENDPOINTS = [get_room_summary, get_old_room_summary]
