"""Asking other servers what their room aliases mean (Server-Server API, "Public Room Directory",
`GET /query/directory`)."""

from __future__ import annotations

from dataclasses import dataclass

from federation.client.errors import BadAnswer
from federation.client.requests import FederationClient
from homeserver.core.ids import InvalidIdentifier, RoomID, ServerName

MAX_ANSWER = 1024 * 1024
MAX_SERVERS = 100
TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class AliasAnswer:
    """The room that an alias points to, and servers that are in it."""

    room_id: str
    servers: tuple[str, ...]


class DirectoryCalls:
    """Asks other servers; everything raises `RemoteError`."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def alias(self, destination: str, alias: str) -> AliasAnswer:
        """What an alias of a server means."""
        answer = await self._client.get_json(
            destination,
            "/_matrix/federation/v1/query/directory",
            query={"room_alias": alias},
            timeout_s=TIMEOUT_S,
            max_bytes=MAX_ANSWER,
        )
        room_id, servers = answer.get("room_id"), answer.get("servers", [])
        if not isinstance(room_id, str) or not isinstance(servers, list):
            raise BadAnswer(destination, "the answer about an alias has not the right form")
        try:
            RoomID.parse(room_id)
        except InvalidIdentifier as problem:
            raise BadAnswer(destination, f"the alias leads to no room: {problem}") from None
        named = [name for name in servers[:MAX_SERVERS] if _is_server_name(name)]
        return AliasAnswer(room_id, tuple(dict.fromkeys(named)))


def _is_server_name(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        ServerName.parse(value)
    except InvalidIdentifier:
        return False
    return True
