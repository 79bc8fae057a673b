"""Looking up other networks (Client-server API, "Third-party Lookups")."""

from __future__ import annotations

import msgspec

from homeserver.core.types import JsonObject
from homeserver.rooms.networks import ThirdPartyNetworks
from homeserver.web.endpoint import Auth, Request, Requester, endpoint
from homeserver.web.schema import parse_query

_BASE = "/_matrix/client/v3/thirdparty"


class AliasQuery(msgspec.Struct, frozen=True):
    alias: str


class UserQuery(msgspec.Struct, frozen=True):
    userid: str


def _fields(request: Request) -> dict[str, str]:
    """What to search by: everything in the query."""
    found = parse_query(request.raw_query)
    return {name: values[0] for name, values in found.items() if name != "access_token"}


@endpoint("GET", f"{_BASE}/protocols", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_protocols(requester: Requester, networks: ThirdPartyNetworks) -> JsonObject:
    """The networks that are connected here."""
    return dict(await networks.protocols())


@endpoint("GET", f"{_BASE}/protocol/{{protocol}}", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_protocol(
    requester: Requester, protocol: str, networks: ThirdPartyNetworks
) -> JsonObject:
    """One of them."""
    return await networks.protocol(protocol)


@endpoint("GET", f"{_BASE}/location/{{protocol}}", auth=Auth.ACCESS_TOKEN, rate="read")
async def find_locations(
    requester: Requester, protocol: str, request: Request, networks: ThirdPartyNetworks
) -> list[JsonObject]:
    """Rooms that lead to places of a network."""
    return await networks.locations(protocol, _fields(request))


@endpoint("GET", f"{_BASE}/user/{{protocol}}", auth=Auth.ACCESS_TOKEN, rate="read")
async def find_users(
    requester: Requester, protocol: str, request: Request, networks: ThirdPartyNetworks
) -> list[JsonObject]:
    """Users who stand for those of a network."""
    return await networks.users(protocol, _fields(request))


@endpoint("GET", f"{_BASE}/location", auth=Auth.ACCESS_TOKEN, rate="read")
async def location_of_alias(
    requester: Requester, query: AliasQuery, networks: ThirdPartyNetworks
) -> list[JsonObject]:
    """What a room alias stands for."""
    return await networks.location_of(query.alias)


@endpoint("GET", f"{_BASE}/user", auth=Auth.ACCESS_TOKEN, rate="read")
async def user_of_id(
    requester: Requester, query: UserQuery, networks: ThirdPartyNetworks
) -> list[JsonObject]:
    """Whom a user ID stands for."""
    return await networks.user_of(query.userid)


ENDPOINTS = [
    get_protocols,
    get_protocol,
    find_locations,
    find_users,
    location_of_alias,
    user_of_id,
]
