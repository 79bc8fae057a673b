"""Where calls of many people are carried (MSC4143)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from homeserver.core.types import JsonObject
from homeserver.web.endpoint import Auth, Requester, endpoint


@dataclass(frozen=True, slots=True)
class RtcTransports:
    """`livekit_urls`: the services that let clients into the operator's LiveKit servers."""

    livekit_urls: Sequence[str] = ()

    def listed(self) -> list[JsonObject]:
        """As clients are told, the preferred one first."""
        return [{"type": "livekit", "livekit_service_url": url} for url in self.livekit_urls]


class TransportsAnswer(msgspec.Struct):
    rtc_transports: list[JsonObject]


@endpoint(
    "GET",
    "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
    auth=Auth.GUEST_OK,
    rate="read",
)
async def get_rtc_transports(requester: Requester, transports: RtcTransports) -> TransportsAnswer:
    """The transports that this server's operator offers."""
    return TransportsAnswer(transports.listed())


ENDPOINTS = [get_rtc_transports]
