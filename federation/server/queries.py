"""What other servers ask for by name (server-server API, "Querying for information")."""

from __future__ import annotations

import msgspec

from homeserver.core import errors
from homeserver.core.ids import RoomAlias, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.remote_aliases import RoomFinder
from homeserver.users.profiles import Profiles
from homeserver.web.endpoint import Auth, endpoint

_QUERY = "/_matrix/federation/v1/query"


class AliasQuery(msgspec.Struct, frozen=True):
    room_alias: RoomAlias


class AliasAnswer(msgspec.Struct, frozen=True):
    room_id: str
    servers: list[str]


class ProfileQuery(msgspec.Struct, frozen=True):
    user_id: UserID
    field: str | None = None


@endpoint("GET", f"{_QUERY}/directory", auth=Auth.FEDERATION, rate="federation")
async def query_directory(
    origin: ServerName, query: AliasQuery, aliases: Aliases, finder: RoomFinder
) -> AliasAnswer:
    """The room of an alias of this server. Others are not asked for theirs."""
    if query.room_alias.domain != aliases.server_name:
        raise errors.not_found("This room alias is not of this server.")
    found = await finder.find(query.room_alias)
    return AliasAnswer(found.room_id, list(found.servers))


@endpoint("GET", f"{_QUERY}/profile", auth=Auth.FEDERATION, rate="federation")
async def query_profile(origin: ServerName, query: ProfileQuery, profiles: Profiles) -> JsonObject:
    """The profile of a user of this server, or one field of it."""
    profile = await profiles.get_local(query.user_id)
    if query.field is None:
        return profile
    if query.field not in profile:
        raise errors.not_found("This profile field is not set.")
    return {query.field: profile[query.field]}


@endpoint("GET", f"{_QUERY}/{{query_type}}", auth=Auth.FEDERATION, rate="federation")
async def query_other(origin: ServerName, query_type: str) -> JsonObject:
    """Any other query. Raises MatrixError 404 `M_UNRECOGNIZED`."""
    raise errors.unrecognized("This server does not know this kind of query.")


ENDPOINTS = [query_directory, query_profile, query_other]
