"""Signing keys, of this server and of others (Server-Server API, "Retrieving server keys")."""

from __future__ import annotations

import msgspec

from federation.server.notary import Criteria, Notary
from federation.server.own_keys import OwnKeys
from homeserver.core.errors import invalid_param, too_large
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.core.types import JsonObject
from homeserver.web.endpoint import Auth, endpoint
from homeserver.web.request import Request

MAX_SERVERS = 1000
MAX_KEYS = 5000
"""Of one query."""

_MAX_BODY = 1024 * 1024


class MinimumQuery(msgspec.Struct):
    minimum_valid_until_ts: int | None = None


class KeysQuery(msgspec.Struct):
    server_keys: dict[str, dict[str, MinimumQuery]]


class KeysAnswer(msgspec.Struct):
    server_keys: list[JsonObject]


@endpoint(
    "GET",
    "/_matrix/key/v2/server/{key_id}",
    auth=Auth.NONE,
    also=("/_matrix/key/v2/server", "/_matrix/key/v2/server/"),
)
async def get_server_keys(own_keys: OwnKeys, key_id: str = "") -> JsonObject:
    """The keys of this server, all of them whatever key was asked for."""
    return own_keys.published()


@endpoint(
    "GET",
    "/_matrix/key/v2/query/{server_name}/{key_id}",
    auth=Auth.NONE,
    rate="read",
    also=("/_matrix/key/v2/query/{server_name}",),
)
async def query_server_keys(
    request: Request,
    server_name: ServerName,
    query: MinimumQuery,
    notary: Notary,
    key_id: str = "",
) -> KeysAnswer:
    """The keys of another server."""
    minimum_ts = query.minimum_valid_until_ts
    key_ids = {key_id: minimum_ts} if key_id else {}
    wanted: dict[str, Criteria] = {server_name: Criteria(key_ids, minimum_ts)}
    return KeysAnswer(await notary.query(wanted, request.remote_address))


@endpoint("POST", "/_matrix/key/v2/query", auth=Auth.NONE, rate="read", max_body=_MAX_BODY)
async def query_keys(request: Request, body: KeysQuery, notary: Notary) -> KeysAnswer:
    """The keys of several servers."""
    asked = body.server_keys
    if len(asked) > MAX_SERVERS or sum(map(len, asked.values())) > MAX_KEYS:
        raise too_large(f"At most {MAX_SERVERS} servers and {MAX_KEYS} keys can be asked for.")
    wanted: dict[str, Criteria] = {}
    for name, key_ids in asked.items():
        try:
            server_name = ServerName.parse(name)
        except InvalidIdentifier as error:
            raise invalid_param(str(error)) from None
        wanted[server_name] = Criteria(
            {key_id: minimum.minimum_valid_until_ts for key_id, minimum in key_ids.items()}
        )
    return KeysAnswer(await notary.query(wanted, request.remote_address))


ENDPOINTS = [get_server_keys, query_server_keys, query_keys]
