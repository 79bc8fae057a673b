"""Where servers find this one, and what runs here (Server-Server API, "Server Discovery")."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from homeserver import __version__
from homeserver.core.errors import not_found
from homeserver.web.endpoint import Auth, endpoint

_HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Delegation:
    """Where other servers are sent: the host and port of `public_base_url`.

    None where there is no such URL, or not one of HTTPS, which federation needs.
    """

    server: str | None

    @classmethod
    def of(cls, public_base_url: str | None) -> Delegation:
        """What a configuration says."""
        url = urlsplit(public_base_url or "")
        if url.scheme != "https" or url.hostname is None:
            return cls(None)
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        return cls(f"{host}:{url.port or _HTTPS_PORT}")


class ServerAnswer(msgspec.Struct):
    server: str = msgspec.field(name="m.server")


class Software(msgspec.Struct):
    name: str
    version: str


class VersionAnswer(msgspec.Struct):
    server: Software


@endpoint("GET", "/.well-known/matrix/server", auth=Auth.NONE)
async def get_server(delegation: Delegation) -> ServerAnswer:
    """Where other servers reach this one."""
    if delegation.server is None:
        raise not_found("No delegation is configured.")
    return ServerAnswer(delegation.server)


@endpoint("GET", "/_matrix/federation/v1/version", auth=Auth.NONE)
async def get_version() -> VersionAnswer:
    """What runs here."""
    return VersionAnswer(Software("Hearth", __version__))


ENDPOINTS = [get_server, get_version]
