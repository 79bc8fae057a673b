"""HTTP/1.1, as a rule over TLS, bounded: the exchange of one request and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed

import homeserver
from federation.client.answer_head import NotHttp
from federation.client.body import BodyReader, NoEnd, Stalled, TooLarge, WholeReader
from federation.client.connecting import CannotConnect, Connector
from federation.client.connection import ConnectionEnded, Receiver
from federation.client.errors import BadAnswer, RemoteTimeout, Unreachable
from federation.client.pool import Pool
from federation.client.route import Route

_USER_AGENT = f"Hearth/{homeserver.__version__}"
_FAULTS = (CannotConnect, ConnectError, ConnectionEnded, NoEnd, NotHttp, TooLarge)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_FIRST_LINE = re.compile(r"[A-Z]+ [!-~]+")
_HEADER = re.compile(r"[!-9;-~]+: [^\0\r\n]*")


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
        except _FAULTS as error:
            raise _remote(self._server, error) from None
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
        self._keep_alive = keep_alive
        self._pool = Pool(reactor, connector, keep_alive=keep_alive)

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
        request = self._encoded(method, route, uri, headers, body)
        is_second = False
        while True:
            reader = WholeReader(max_bytes, max_error_bytes, cut)
            was_kept = False
            try:
                was_kept = await self._ask(route, method, request, reader, is_second)
                head, read = await reader.done
                return HttpAnswer(head.status, head.headers, read)
            except _FAULTS as error:
                if not is_second and _may_repeat(error, method, was_kept):
                    is_second = True
                    continue
                raise _remote(server, error) from None

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
        request = self._encoded("GET", route, uri, headers, None)
        is_second = False
        while True:
            reader = BodyReader(self._reactor, max_bytes, stalled_s)
            was_kept = False
            try:
                was_kept = await self._ask(route, "GET", request, reader, is_second)
                head = await reader.begun
                return StreamedAnswer(server, head.status, head.headers, reader)
            except _FAULTS as error:
                if not is_second and _may_repeat(error, "GET", was_kept):
                    is_second = True
                    continue
                raise _remote(server, error) from None

    async def close(self) -> None:
        """Close the kept connections."""
        await self._pool.close()

    async def _ask(
        self, route: Route, method: str, request: bytes, receiver: Receiver, on_a_new_one: bool
    ) -> bool:
        """Send a request; whether over a connection that was kept."""
        connection = None if on_a_new_one else self._pool.take(route)
        was_kept = connection is not None
        if connection is None:
            try:
                connection = await self._pool.connect(route)
            except ConnectingCancelledError:
                raise CancelledError from None
        connection.ask(method, request, receiver)
        return was_kept

    def _encoded(
        self, method: str, route: Route, uri: str, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        """The bytes of a request. Raises `ValueError` for what would be another one."""
        first = f"{method} {uri}"
        if not _FIRST_LINE.fullmatch(first):
            raise ValueError("this is no request of HTTP")
        lines = [f"Host: {route.host_header}", f"User-Agent: {_USER_AGENT}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not all(map(_HEADER.fullmatch, lines)):
            raise ValueError("this is no header of HTTP")
        if body is not None or method in _WITH_BODY:
            lines.append(f"Content-Length: {len(body or b'')}")
        if not self._keep_alive:
            lines.append("Connection: close")
        head = "\r\n".join((f"{first} HTTP/1.1", *lines, "", "")).encode()
        return head + body if body else head


def _may_repeat(error: BaseException, method: str, was_kept: bool) -> bool:
    """May a request be sent again, when nothing of an answer came? A kept connection may have been
    given up by the other side while the request was on its way. Each PUT of the specification may
    be repeated; of POST nobody knows."""
    if not isinstance(error, ConnectionEnded) or not error.is_unanswered:
        return False
    if method == "PUT":
        return isinstance(error.reason, ConnectionClosed)
    return was_kept and method == "GET"


def _remote(server: str, error: BaseException) -> Unreachable | BadAnswer:
    if isinstance(error, TooLarge):
        return BadAnswer(server, "its answer is too large")
    if isinstance(error, NotHttp):
        return BadAnswer(server, f"its answer is not HTTP: {error}")
    reason = error.reason if isinstance(error, ConnectionEnded) else error
    if isinstance(reason, VerificationError):
        return Unreachable(server, "its certificate is for another name")
    if isinstance(reason, SSL.Error):
        return Unreachable(server, f"TLS failed: {_tls_fault(reason)}")
    return Unreachable(server, str(reason)[:300])


def _tls_fault(error: SSL.Error) -> str:
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return ", ".join(str(entry[-1]) for entry in queue)
    return "the connection ended"
