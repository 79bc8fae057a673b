"""HTTP/1.1, as a rule over TLS, bounded: the exchange of one request and its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError, RequestNotSent
from twisted.web.client import Agent as HttpAgent
from twisted.web.client import (
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

import homeserver
from federation.client.body import BodyReader, BytesBody, Stalled, TooLarge, read_body
from federation.client.connecting import CannotConnect, Connector, RouteEndpoint
from federation.client.errors import BadAnswer, RemoteTimeout, Unreachable
from federation.client.route import Route

# Neither has types.
_HttpAgent: Any = HttpAgent
_Pool: Any = HTTPConnectionPool

IDLE_CONNECTION_S = 60
"""For how long a connection is kept for the next request."""

_MAX_IDLE_PER_SERVER = 2
_USER_AGENT = f"Hearth/{homeserver.__version__}"
_CANCELLED = (CancelledError, ConnectingCancelledError)
_FAULTS = (
    CannotConnect,
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ParseError,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
    SSL.Error,
    TooLarge,
    VerificationError,
)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer; the names of `headers` are in lower case, of repeated ones the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StreamedAnswer:
    """An answer whose body is still arriving: an async iterator of bytes, to be closed."""

    def __init__(
        self, server: str, status: int, headers: Mapping[str, str], reader: BodyReader
    ) -> None:
        self.status = status
        self.headers = headers
        self._server = server
        self._reader = reader

    def __aiter__(self) -> StreamedAnswer:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._reader)
        except (*_FAULTS, PotentialDataLoss) as error:
            raise _translated(self._server, error) from None
        except Stalled:
            raise RemoteTimeout(self._server, "its answer does not go on") from None

    async def whole(self) -> bytes:
        """All that is left."""
        return b"".join([data async for data in self])

    def close(self) -> None:
        """Read no more."""
        self._reader.close()


class Https:
    """Sends requests along routes, over kept connections where there are any."""

    def __init__(self, reactor: Any, connector: Connector, *, keep_alive: bool) -> None:
        self._reactor = reactor
        self._connector = connector
        self._pool = _Pool(reactor, persistent=keep_alive)
        self._pool.maxPersistentPerHost = _MAX_IDLE_PER_SERVER
        self._pool.cachedConnectionTimeout = IDLE_CONNECTION_S

    async def exchange(
        self,
        server: str,
        route: Route,
        method: str,
        uri: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        max_bytes: int,
        max_error_bytes: int,
        cut: bool = False,
    ) -> HttpAnswer:
        """Send a request and read its answer; redirects are answers like others.

        Parameters: `server` names the other side in errors; `uri` is path and query;
        `max_bytes` bounds the body of a 2xx answer, `max_error_bytes` that of others; with `cut`
        longer ones are cut off there. Raises `Unreachable` and `BadAnswer`. Cancelling closes
        the connection.
        """
        agent, url, sent = self._prepared(route, uri, headers)
        attempts = 2 if method == "PUT" else 1
        while True:
            attempts -= 1
            try:
                response = await agent.request(
                    method.encode("ascii"),
                    url,
                    sent.copy(),
                    None if body is None else BytesBody(body),
                )
                limit = max_bytes if 200 <= response.code < 300 else max_error_bytes
                read = await read_body(response, limit, cut=cut)
                return HttpAnswer(response.code, _plain(response.headers), read)
            except _FAULTS as error:
                reasons = list(_reasons(error))
                if any(isinstance(reason, _CANCELLED) for reason in reasons):
                    raise CancelledError from None
                if attempts and _closed_unanswered(error, reasons):
                    continue
                raise _remote(server, reasons) from None

    async def open(
        self,
        server: str,
        route: Route,
        uri: str,
        headers: Mapping[str, str],
        *,
        max_bytes: int,
        stalled_s: float,
    ) -> StreamedAnswer:
        """GET something whose body is read as it arrives; otherwise as `exchange`.

        Raises as `exchange` does, also while the body is read, which ends when nothing comes for
        `stalled_s` seconds. The answer must be closed.
        """
        agent, url, sent = self._prepared(route, uri, headers)
        try:
            response = await agent.request(b"GET", url, sent, None)
        except _FAULTS as error:
            raise _translated(server, error) from None
        reader = BodyReader(self._reactor, max_bytes, stalled_s)
        response.deliverBody(reader)
        return StreamedAnswer(server, response.code, _plain(response.headers), reader)

    def _prepared(
        self, route: Route, uri: str, headers: Mapping[str, str]
    ) -> tuple[Any, bytes, Headers]:
        """What asks, the address, and the headers."""
        sent = Headers()
        sent.addRawHeader("Host", route.host_header)
        sent.addRawHeader("User-Agent", _USER_AGENT)
        for name, value in headers.items():
            sent.addRawHeader(name, value)
        agent = _HttpAgent.usingEndpointFactory(
            self._reactor, _Endpoints(RouteEndpoint(self._connector, route)), self._pool
        )
        # The pool tells connections apart by the host in the URL.
        return agent, f"https://{route.key}{uri}".encode("ascii"), sent

    async def close(self) -> None:
        """Close the kept connections."""
        await self._pool.closeCachedConnections()


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, endpoint: RouteEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: object) -> RouteEndpoint:
        return self._endpoint


def _plain(headers: Headers) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): values[-1].decode("latin-1")
        for name, values in headers.getAllRawHeaders()
    }


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """What is behind an error of the HTTP client, or the error itself."""
    inner: list[Failure] = getattr(error, "reasons", None) or []
    if not inner:
        yield error
    for failure in inner:
        if failure.value is not None:
            yield from _reasons(failure.value)


def _translated(server: str, error: BaseException) -> BaseException:
    reasons = list(_reasons(error))
    if any(isinstance(reason, _CANCELLED) for reason in reasons):
        return CancelledError()
    return _remote(server, reasons)


def _closed_unanswered(error: BaseException, reasons: list[BaseException]) -> bool:
    """Did the connection end before the answer, as kept ones do that the server gave up?"""
    return isinstance(
        error, (RequestNotSent, RequestTransmissionFailed, ResponseNeverReceived)
    ) and all(isinstance(reason, ConnectionClosed) for reason in reasons)


def _remote(server: str, reasons: list[BaseException]) -> Unreachable | BadAnswer:
    for reason in reasons:
        if isinstance(reason, TooLarge):
            return BadAnswer(server, "its answer is too large")
        # Twisted says ValueError of lengths that contradict each other.
        if isinstance(reason, (ParseError, ValueError)):
            return BadAnswer(server, "its answer is not HTTP")
        if isinstance(reason, VerificationError):
            return Unreachable(server, "its certificate is for another name")
        if isinstance(reason, SSL.Error):
            return Unreachable(server, f"TLS failed: {_tls_fault(reason)}")
    return Unreachable(server, "; ".join(str(reason) for reason in reasons)[:300])


def _tls_fault(error: SSL.Error) -> str:
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return ", ".join(str(entry[-1]) for entry in queue)
    return "the connection ended"
