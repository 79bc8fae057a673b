"""Requests to web servers that the operator or a user named, as a rule by HTTPS only.

The addresses connected to are judged (`outgoing_http` of the configuration), answers are bounded
in size and time, redirects are answers like others and are not followed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from config.model import OutgoingHttp
from federation.client.errors import BadAnswer, RemoteTimeout, Unreachable
from federation.client.guard import AddressGuard
from federation.client.route import Endpoint, Route
from federation.client.stack import WebStack
from homeserver.core import canonical
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.core.types import JsonObject

if TYPE_CHECKING:
    from federation.client.dns import DnsQueries
    from federation.client.https import HttpAnswer, Https, StreamedAnswer

TIMEOUT_S = 20.0
MAX_BYTES = 256 * 1024

_JSON = {"Accept": "application/json"}


class OutgoingHttpClient:
    """Asks web servers. All methods raise `RemoteError` where there is no usable answer."""

    def __init__(
        self,
        reactor: Any,
        config: OutgoingHttp,
        *,
        dns: DnsQueries | None = None,
        keep_alive: bool = False,
        allow_http: bool = False,
    ) -> None:
        """Raises `BadCaFile`. `dns` answers instead of the machine's name servers; with
        `keep_alive` connections serve several requests; `allow_http`: by http:// too."""
        self._reactor = reactor
        self._allow_http = allow_http
        self._keep_alive = keep_alive
        self._stack = WebStack(
            reactor,
            AddressGuard(config.allowed_ip_ranges, config.denied_ip_ranges),
            verify=config.verify_tls,
            ca_files=config.ca_files,
            dns=dns,
        )

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> HttpAnswer:
        """Send a request and read its answer, whatever its status."""
        route, uri = web_route(url, allow_http=self._allow_http)
        asking = Deferred.fromCoroutine(
            self._https().exchange(
                route.host_header,
                route,
                method,
                uri,
                headers,
                body,
                max_bytes=max_bytes,
                max_error_bytes=max_bytes,
            )
        )
        asking.addTimeout(timeout_s, self._reactor)
        try:
            return await asking
        except DeferredTimeout:
            raise RemoteTimeout(route.host_header, "no complete answer in time") from None

    async def open(self, url: str, *, max_bytes: int, stalled_s: float) -> StreamedAnswer:
        """GET something whose body is read as it arrives: see `Https.open`."""
        route, uri = web_route(url)
        return await self._https().open(
            route.host_header, route, uri, {}, max_bytes=max_bytes, stalled_s=stalled_s
        )

    async def post_form(self, url: str, fields: Mapping[str, str]) -> JsonObject:
        """Send a form; the JSON object of a 2xx answer."""
        headers = {**_JSON, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await self.request("POST", url, headers, urlencode(fields).encode("ascii"))
        if not 200 <= answer.status < 300:
            raise BadAnswer(_host(url), f"answered {answer.status}")
        found = json_object(answer)
        if found is None:
            raise BadAnswer(_host(url), "its answer is not a JSON object")
        return found

    async def post_json(
        self,
        url: str,
        content: JsonObject,
        headers: Mapping[str, str] | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> HttpAnswer:
        """Send JSON; the answer, whatever its status."""
        sent = {**_JSON, "Content-Type": "application/json", **(headers or {})}
        body = json.dumps(content).encode()
        return await self.request("POST", url, sent, body, max_bytes=max_bytes, timeout_s=timeout_s)

    async def close(self) -> None:
        """Let go of what is kept. Requests under way are their callers' to cancel."""
        await self._stack.close()

    def _https(self) -> Https:
        return self._stack.kept if self._keep_alive else self._stack.single


def json_object(answer: HttpAnswer) -> JsonObject | None:
    """The JSON object in an answer; None if it is something else."""
    try:
        found = canonical.parse(answer.body)
    except canonical.NotJSON:
        return None
    return found if isinstance(found, dict) else None


def web_route(url: str, *, allow_http: bool = False) -> tuple[Route, str]:
    """Where a web server is found, and path and query; raises `Unreachable` for a bad URL."""
    try:
        parts = urlsplit(url)
        name = ServerName.parse(parts.netloc)
    except (ValueError, InvalidIdentifier):
        raise Unreachable("?", "this is no URL of a web server") from None
    usable = url.isascii() and url.isprintable() and " " not in url
    is_plain = allow_http and parts.scheme == "http"
    if not usable or (parts.scheme != "https" and not is_plain):
        raise Unreachable(str(name), "only HTTPS is spoken")
    host = name.host.strip("[]")
    path = parts.path or "/"
    port = name.port or (80 if is_plain else 443)
    route = Route("web", str(name), None if is_plain else host, (Endpoint(host, port),))
    return route, f"{path}?{parts.query}" if parts.query else path


def _host(url: str) -> str:
    return urlsplit(url).netloc
