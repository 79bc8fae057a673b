"""How long messages are kept (MSC1763)."""

from __future__ import annotations

from homeserver.core.types import JsonObject
from homeserver.rooms.retention import Retention
from homeserver.web.endpoint import Auth, Requester, endpoint


@endpoint(
    "GET",
    "/_matrix/client/unstable/org.matrix.msc1763/retention/configuration",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
)
async def get_retention_configuration(requester: Requester, retention: Retention) -> JsonObject:
    """What the server does with messages that are older than their room keeps them."""
    return retention.configuration()


ENDPOINTS = [get_retention_configuration]
