"""Responses as bytes of HTTP/1.1."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from homeserver.core.errors import MatrixError
from homeserver.web.request import ClientDisconnected, Request
from homeserver.web.responses import CORS_HEADERS, Response, error_response

SLICE = 64 * 1024
"""Larger bodies are handed to the transport in slices of this many bytes."""

COMPRESS_FROM = 4096
"""Smaller bodies in bytes are sent as they are: compressing costs more than it saves."""

_COMPRESSED_TYPES = ("application/json", "application/javascript", "image/svg+xml", "text/")
_NO_BODY = frozenset({204, 304})

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@lru_cache(maxsize=256)
def _lines(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}\r\n"]
    for name, value in headers:
        if any(character in "\r\n\0" for character in name + value):
            raise ValueError(f"the header {name!r} would break the response")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("utf-8")


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return b"Date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n"


def render_head(
    response: Response, length: int | None, *, chunked: bool, connection: str | None, now: float
) -> bytes:
    """The head of a response. `length` of the body, unless unknown or in the headers already.

    Raises ValueError for a header with a line break in it.
    """
    head = _lines(response.status, tuple(response.headers.items())) + _date(int(now))
    if chunked:
        head += b"Transfer-Encoding: chunked\r\n"
    elif length is not None and response.status not in _NO_BODY:
        head += b"Content-Length: %d\r\n" % length
    if connection is not None:
        head += b"Connection: " + connection.encode("ascii") + b"\r\n"
    return head + b"\r\n"


def has_body(request: Request, response: Response) -> bool:
    """Whether body bytes follow the head."""
    return request.method != "HEAD" and response.status not in _NO_BODY


def may_compress(request: Request, response: Response, size: int) -> bool:
    """Whether the client takes gzip and it is worth it."""
    if size < COMPRESS_FROM or response.header("content-encoding") is not None:
        return False
    if not (response.header("content-type") or "").startswith(_COMPRESSED_TYPES):
        return False
    return accepts_gzip(request.headers.get(b"accept-encoding", b""))


@lru_cache(maxsize=64)
def accepts_gzip(header: bytes) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    for coding in header.lower().split(b","):
        name, _, weight = coding.partition(b";")
        if name.strip() == b"gzip":
            value = weight.strip().removeprefix(b"q=").strip()
            return not value or value.strip(b"0.") != b""
    return False


def gzip(data: bytes) -> bytes:
    """gzip at the fastest level; without the interpreter lock, so fit for a thread."""
    return zlib.compress(data, 1, wbits=31)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; `data` must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def render_error(error: MatrixError, now: float) -> bytes:
    """The whole response for a request that ends its connection."""
    response = error_response(error)
    response.headers.update(CORS_HEADERS)
    body: Any = response.body
    head = render_head(response, len(body), chunked=False, connection="close", now=now)
    return head + bytes(body)


class Connection(Protocol):
    """What `send_response` asks of a connection."""

    @property
    def is_closed(self) -> bool: ...

    @property
    def is_http10(self) -> bool: ...

    def begin_response(self) -> bool: ...

    def end_with_close(self) -> None: ...

    async def write(self, data: bytes) -> None: ...

    def write_last(self, data: bytes) -> None: ...


async def send_response(
    connection: Connection,
    request: Request,
    response: Response,
    compress: Callable[[bytes], Awaitable[bytes]],
    now: float,
) -> None:
    """Write a response as fast as the client takes it. `now` in seconds, for the Date header.

    Raises ClientDisconnected, ValueError for a stream that does not keep its Content-Length or
    a header with a line break, and what the stream raises.
    """
    body = response.body
    if not isinstance(body, bytes):
        assert isinstance(body, AsyncIterator)
        try:
            await _send_stream(connection, request, response, body, now)
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
        return
    if may_compress(request, response, len(body)):
        body = await compress(body)
        headers = {**response.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        response = Response(response.status, body, headers)
    if connection.is_closed:
        return
    option = _connection_option(connection, connection.begin_response())
    data = render_head(response, len(body), chunked=False, connection=option, now=now)
    if has_body(request, response):
        if len(body) > SLICE:
            await connection.write(data)
            data = b""
            last = (len(body) - 1) // SLICE * SLICE
            for start in range(0, last, SLICE):
                await connection.write(body[start : start + SLICE])
            body = body[last:]
        data += body
    connection.write_last(data)


async def _send_stream(
    connection: Connection,
    request: Request,
    response: Response,
    body: AsyncIterator[bytes],
    now: float,
) -> None:
    if connection.is_closed:
        raise ClientDisconnected
    stated = response.header("content-length")
    left = None if stated is None else int(stated)
    wants_body = has_body(request, response)
    chunked = left is None and wants_body and not connection.is_http10
    if left is None and wants_body and not chunked:
        connection.end_with_close()  # the end of the connection is the end of the body
    option = _connection_option(connection, connection.begin_response())
    head = render_head(response, None, chunked=chunked, connection=option, now=now)
    if not wants_body:
        connection.write_last(head)
        return
    await connection.write(head)
    async for data in body:
        if left is not None:
            left -= len(data)
            if left < 0:
                raise ValueError("the body is longer than its Content-Length")
        if data:
            await connection.write(chunk(data) if chunked else data)
    if left:
        raise ValueError("the body is shorter than its Content-Length")
    if chunked:
        connection.write_last(LAST_CHUNK)


def _connection_option(connection: Connection, keep_alive: bool) -> str | None:
    if not keep_alive:
        return "close"
    return "keep-alive" if connection.is_http10 else None
