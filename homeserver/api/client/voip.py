"""TURN servers for calls (Client-server API, "Voice over IP")."""

from __future__ import annotations

import msgspec

from homeserver.users.turn import Turn
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint


class TurnAnswer(msgspec.Struct):
    username: str
    password: str
    uris: list[str]
    ttl: int


@endpoint("GET", "/_matrix/client/v3/voip/turnServer", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_turn_server(requester: Requester, turn: Turn) -> TurnAnswer | Empty:
    """Credentials for this server's TURN servers; empty without any."""
    found = turn.credentials(requester.user_id)
    if found is None:
        return EMPTY
    return TurnAnswer(found.username, found.password, found.uris, found.ttl)


ENDPOINTS = [get_turn_server]
