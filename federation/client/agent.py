"""The agent that carries federation requests: discovery, guarded connections, HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from config.model.network import Federation
from federation.client.errors import BadAnswer, RemoteTimeout
from federation.client.guard import AddressGuard
from federation.client.requests import Answer
from federation.client.resolver import Resolver
from federation.client.route import Endpoint, Route
from federation.client.srv import SrvLookup
from federation.client.stack import WebStack
from federation.client.well_known import MAX_BYTES, WellKnown, WellKnownAnswer
from homeserver.core.ids import InvalidIdentifier, ServerName

if TYPE_CHECKING:
    from federation.client.dns import DnsQueries
    from federation.client.https import HttpAnswer, StreamedAnswer
    from federation.client.names import SrvRecord

WELL_KNOWN_TIMEOUT_S = 15.0
MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)


class Agent:
    """Finds homeservers and talks to them; a `FederationAgent`."""

    def __init__(
        self,
        reactor: Any,
        config: Federation,
        *,
        dns: DnsQueries | None = None,
        random: Random | None = None,
    ) -> None:
        """Build the parts from the configuration; raises `BadCaFile`.

        Parameters: `reactor` provides IReactorTCP and IReactorTime; `dns` answers instead of
        the machine's name servers; `random` draws among SRV records.
        """
        self._reactor = reactor
        self._stack = WebStack(
            reactor,
            AddressGuard(config.allowed_ip_ranges, config.denied_ip_ranges),
            verify=config.verify_certificates,
            ca_files=config.ca_files,
            dns=dns,
            random=random,
        )
        well_known, srv = WellKnown(self._well_known, reactor), SrvLookup(self._services, reactor)
        self._resolver = Resolver(well_known, srv)
        self.caches = (*well_known.caches, *srv.caches, *self._stack.caches)

    async def request(
        self,
        method: str,
        destination: ServerName,
        uri: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        max_bytes: int,
        max_error_bytes: int,
    ) -> Answer:
        """As `FederationAgent.request`."""
        route = await self._resolver.resolve(destination)
        answer = await self._stack.kept.exchange(
            destination,
            route,
            method,
            uri,
            headers,
            body,
            max_bytes=max_bytes,
            max_error_bytes=max_error_bytes,
        )
        return Answer(answer.status, answer.headers.get("retry-after"), answer.body)

    async def open(
        self,
        destination: ServerName,
        uri: str,
        headers: Mapping[str, str],
        *,
        max_bytes: int,
        stalled_s: float,
    ) -> StreamedAnswer:
        """GET something whose body is read as it arrives: see `Https.open`."""
        route = await self._resolver.resolve(destination)
        return await self._stack.kept.open(
            destination, route, uri, headers, max_bytes=max_bytes, stalled_s=stalled_s
        )

    async def close(self) -> None:
        """Close what is kept open. Requests under way are their callers' to cancel."""
        await self._stack.close()

    async def _services(self, name: str) -> list[SrvRecord]:
        return await self._stack.dns.services(name)

    async def _well_known(self, host: str) -> WellKnownAnswer:
        """Ask a host for its delegation, following redirects; raises `RemoteError`."""
        asking = Deferred.fromCoroutine(self._follow(host))
        asking.addTimeout(WELL_KNOWN_TIMEOUT_S, self._reactor)
        try:
            answer = await asking
        except DeferredTimeout:
            raise RemoteTimeout(host, "no complete answer to well-known in time") from None
        return WellKnownAnswer(answer.status, answer.headers, answer.body)

    async def _follow(self, host: str) -> HttpAnswer:
        url = f"https://{host}/.well-known/matrix/server"
        seen = set[str]()
        while True:
            if url in seen or len(seen) > MAX_REDIRECTS:
                raise BadAnswer(host, "well-known redirects without end")
            seen.add(url)
            route, uri = _web_route(host, url)
            answer = await self._stack.single.exchange(
                host,
                route,
                "GET",
                uri,
                {"Accept": "application/json"},
                None,
                max_bytes=MAX_BYTES,
                max_error_bytes=MAX_BYTES,
            )
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            try:
                url = urljoin(url, location.strip())
            except ValueError:
                raise BadAnswer(host, "well-known redirects to what is no URL") from None


def _web_route(host: str, url: str) -> tuple[Route, str]:
    """The route to an ordinary web server, and path and query; raises `BadAnswer`.

    Redirects away from HTTPS are refused: what they lead to proves nothing about the host.
    """
    try:
        parts = urlsplit(url)
        usable = url.isascii() and url.isprintable() and " " not in url
        if parts.scheme != "https" or not usable:
            raise BadAnswer(host, "well-known redirects to what is not HTTPS")
        name = ServerName.parse(parts.netloc)
    except (ValueError, InvalidIdentifier):
        raise BadAnswer(host, "well-known redirects to what is no URL") from None
    web_host = name.host.strip("[]")
    path = parts.path or "/"
    uri = f"{path}?{parts.query}" if parts.query else path
    port = 443 if name.port is None else name.port
    return Route("web", str(name), web_host, (Endpoint(web_host, port),)), uri
