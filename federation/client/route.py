"""Where requests to a server go, and what the server must prove."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A host and port that may be connected to.

    `host` is a DNS name or an IP address without brackets. `priority`, `weight` and `from_srv`
    are an SRV record's; the host of such a record must not be an alias.
    """

    host: str
    port: int
    priority: int = 0
    weight: int = 0
    from_srv: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """The outcome of server discovery.

    `host_header` is sent as `Host`; the certificate must be valid for `tls_name` (a DNS name,
    which is sent as SNI, or an IP address without brackets); None is plain TCP, of which only
    pages of the web are had. `step` is the number of the step of "Resolving server names" that
    decided.
    """

    step: str
    host_header: str
    tls_name: str | None
    endpoints: tuple[Endpoint, ...]

    @property
    def key(self) -> tuple[str, str | None, tuple[Endpoint, ...]]:
        """Equal for routes whose connections can serve each other."""
        endpoints = self.endpoints if len(self.endpoints) == 1 else tuple(sorted(self.endpoints))
        return self.host_header, self.tls_name, endpoints
