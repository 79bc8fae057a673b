"""Room aliases (client-server API, "Room aliases")."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import RoomAlias, RoomID
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.remote_aliases import RoomFinder
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_ALIAS = "/_matrix/client/v3/directory/room/{room_alias}"


class AliasTarget(msgspec.Struct, frozen=True):
    room_id: RoomID


class ResolvedAlias(msgspec.Struct, frozen=True):
    room_id: str
    servers: list[str]


class RoomAliases(msgspec.Struct, frozen=True):
    aliases: list[str]


@endpoint("GET", _ALIAS, auth=Auth.NONE, rate="read")
async def get_alias(room_alias: RoomAlias, finder: RoomFinder) -> ResolvedAlias:
    """The room that an alias points to."""
    found = await finder.find(room_alias)
    return ResolvedAlias(found.room_id, list(found.servers))


@endpoint("PUT", _ALIAS, auth=Auth.ACCESS_TOKEN, rate="write", refuse_suspended=True)
async def put_alias(
    requester: Requester, room_alias: RoomAlias, body: AliasTarget, aliases: Aliases
) -> Empty:
    """Make an alias."""
    await aliases.create(requester, room_alias, body.room_id)
    return EMPTY


@endpoint("DELETE", _ALIAS, auth=Auth.ACCESS_TOKEN, rate="write")
async def delete_alias(requester: Requester, room_alias: RoomAlias, aliases: Aliases) -> Empty:
    """Remove an alias."""
    await aliases.delete(requester, room_alias)
    return EMPTY


@endpoint(
    "GET",
    "/_matrix/client/v3/rooms/{room_id}/aliases",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    also=("/_matrix/client/unstable/org.matrix.msc2432/rooms/{room_id}/aliases",),
)
async def get_room_aliases(requester: Requester, room_id: RoomID, aliases: Aliases) -> RoomAliases:
    """The aliases of a room on this server."""
    return RoomAliases(await aliases.of_room(requester, room_id))


ENDPOINTS = [get_alias, put_alias, delete_alias, get_room_aliases]
