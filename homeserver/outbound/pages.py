"""Pages of the web that anybody named, by HTTP and HTTPS, redirects followed.

Each address is judged when it is connected to, that of a redirect and of a name that changes its
mind too. Answers are cut off at a size, and all of a page must come within a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

import idna
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from config.model import OutgoingHttp, UrlPreviews
from federation.client.errors import BadAnswer, RemoteTimeout
from federation.client.guard import AddressGuard
from federation.client.route import Endpoint, Route
from federation.client.stack import WebStack
from homeserver.core.globs import compile_glob
from homeserver.core.ids import InvalidIdentifier, ServerName

if TYPE_CHECKING:
    from federation.client.dns import DnsQueries
    from federation.client.https import HttpAnswer

MAX_URL = 2048
MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_SAFE = "/:?#[]@!$&'()*+,;=%~"
_CONTROLS = re.compile(r"[\x00-\x20\x7f\\]")


class BadUrl(Exception):
    """This is no address of a page; the message says why, for people."""


class DeniedHost(BadUrl):
    """Pages of this host are not fetched."""


@dataclass(frozen=True, slots=True)
class Page:
    """What was found. `url` is where, after redirects; `is_cut` if there is more."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """What the server says the text is encoded in."""
        found = re.search(
            r"charset\s*=\s*[\"']?([\w.:-]{1,40})", self.headers.get("content-type", ""), re.I
        )
        return None if found is None else found[1]


class WebPages:
    """Fetches pages."""

    def __init__(
        self,
        reactor: Any,
        config: UrlPreviews,
        http: OutgoingHttp,
        *,
        dns: DnsQueries | None = None,
    ) -> None:
        """Raises `BadCaFile`. `dns` answers instead of the machine's name servers."""
        self._reactor = reactor
        self._config = config
        self._denied = [compile_glob(pattern) for pattern in config.denied_hosts]
        self._stack = WebStack(
            reactor,
            AddressGuard(config.allowed_ip_ranges, config.denied_ip_ranges),
            verify=http.verify_tls,
            ca_files=http.ca_files,
            dns=dns,
        )

    def normal(self, url: str) -> str:
        """A URL as it is asked for: see `normal_url`. Raises `BadUrl` and `DeniedHost`."""
        address = normal_url(url)
        host = urlsplit(address).hostname or ""
        if any(pattern.matches(host) for pattern in self._denied):
            raise DeniedHost("Pages of this host are not previewed.")
        return address

    async def fetch(self, url: str, accept: str) -> Page:
        """The page at a URL that `normal` made; `accept` are the media types wanted.

        Raises `BadUrl`, also for where a redirect leads, and `RemoteError`: there is no page.
        """
        asking = Deferred.fromCoroutine(self._followed(url, accept))
        asking.addTimeout(self._config.timeout.seconds, self._reactor)
        try:
            return await asking
        except DeferredTimeout:
            raise RemoteTimeout(urlsplit(url).netloc, "no complete answer in time") from None

    async def _followed(self, url: str, accept: str) -> Page:
        limit = self._config.max_size
        headers = {"Accept": accept, "Accept-Language": ", ".join(self._config.languages)}
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(url, headers, limit)
            if answer.status in _REDIRECTS and answer.headers.get("location"):
                url = self.normal(_joined(url, _text(answer.headers["location"])))
                continue
            if answer.status != 200:
                raise BadAnswer(urlsplit(url).netloc, f"answered {answer.status}")
            return Page(url, answer.headers, answer.body[:limit], len(answer.body) > limit)
        raise BadAnswer(urlsplit(url).netloc, "redirects too often")

    async def _get(self, url: str, headers: Mapping[str, str], limit: int) -> HttpAnswer:
        parts = urlsplit(url)
        route = _route(parts)
        uri = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return await self._stack.single.exchange(
            route.host_header,
            route,
            "GET",
            uri,
            headers,
            None,
            max_bytes=limit + 1,
            max_error_bytes=4096,
            cut=True,
        )

    async def close(self) -> None:
        """Let go of what is kept. Requests under way are their callers' to cancel."""
        await self._stack.close()


def normal_url(url: str) -> str:
    """A URL as it is asked for: ASCII, without fragment, with a host that DNS knows. May raise
    `BadUrl`."""
    url = url.strip()
    if len(url) > MAX_URL:
        raise BadUrl(f"A URL has at most {MAX_URL} characters.")
    if _CONTROLS.search(url):
        raise BadUrl("The URL holds characters that no URL may hold.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadUrl("This is no URL.") from None
    if parts.scheme.lower() not in _PORTS:
        raise BadUrl("Only http: and https: URLs are previewed.")
    if parts.username is not None or parts.password is not None:
        raise BadUrl("A URL with a user name is not previewed.")
    host = _host(parts)
    netloc = host if port is None or port == _PORTS[parts.scheme] else f"{host}:{port}"
    path, query = quote(parts.path or "/", safe=_SAFE), quote(parts.query, safe=_SAFE)
    try:
        ServerName.parse(netloc)
    except InvalidIdentifier:
        raise BadUrl("The URL names no host.") from None
    return urlunsplit((parts.scheme.lower(), netloc, path, query, ""))


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    if ":" in name:
        return f"[{name}]"
    if name.isascii():
        return name.rstrip(".")
    try:
        return idna.encode(name, uts46=True).decode("ascii").rstrip(".")
    except idna.IDNAError:
        raise BadUrl("The URL names no host.") from None


def _route(parts: SplitResult) -> Route:
    """Where a page is found. The URL is one of `normal_url`."""
    host = (parts.hostname or "").strip("[]")
    port = parts.port or _PORTS[parts.scheme]
    tls_name = host if parts.scheme == "https" else None
    return Route("web", parts.netloc, tls_name, (Endpoint(host, port),))


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise BadUrl("This is no URL.") from None


def _text(header: str) -> str:
    """A header in which a server wrote UTF-8."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header
