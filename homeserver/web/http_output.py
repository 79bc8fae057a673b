"""Responses as bytes of HTTP/1.1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

from homeserver.core.errors import MatrixError
from homeserver.web.content_coding import COMPRESS_FROM, CompressedStream, negotiated
from homeserver.web.request import ClientDisconnected, Request
from homeserver.web.responses import CORS_HEADERS, JSON_CORS_HEADERS, Response, error_response

SLICE = 64 * 1024
"""Larger bodies are handed to the transport in slices of this many bytes."""

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


_JSON_LINES = _lines(200, tuple(JSON_CORS_HEADERS.items()))


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return b"Date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n"


def render_head(
    response: Response, length: int | None, *, chunked: bool, connection: str | None, now: float
) -> bytes:
    """The head of a response. `length` of the body, unless unknown or in the headers already.

    Raises ValueError for a header with a line break in it.
    """
    if response.headers is JSON_CORS_HEADERS and response.status == 200:
        head = _JSON_LINES + _date(int(now))
    else:
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


Compress: TypeAlias = Callable[[str, bytes], bytes | Awaitable[bytes]]
"""Compresses a body in a coding, here and now or elsewhere."""


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


def send_response(
    connection: Connection,
    request: Request,
    response: Response,
    compress: Compress,
    now: float,
) -> Awaitable[None] | None:
    """Write a response as fast as the client takes it. `now` in seconds, for the Date header.

    Returns None if all is written, else what to wait for. Both raise ClientDisconnected,
    ValueError for a stream that does not keep its Content-Length or a header with a line break,
    and what the stream raises.
    """
    body = response.body
    if not isinstance(body, bytes):
        assert isinstance(body, AsyncIterator)
        return _send_stream(connection, request, response, body, now)
    if len(body) >= COMPRESS_FROM:
        response, coding = negotiated(request, response, len(body))
        if coding is not None:
            compressed = compress(coding, body)
            if not isinstance(compressed, bytes):
                return _send_compressed(connection, request, response, compressed, now)
            body = compressed
        if len(body) > SLICE and has_body(request, response):
            return _send_large(connection, request, response, body, now)
    if not connection.is_closed:
        head = _head(connection, response, len(body), False, now)
        connection.write_last(head + body if has_body(request, response) else head)
    return None


async def _send_compressed(
    connection: Connection,
    request: Request,
    response: Response,
    compressed: Awaitable[bytes],
    now: float,
) -> None:
    """Send a body that is being compressed elsewhere."""
    body = await compressed
    if has_body(request, response):
        await _send_large(connection, request, response, body, now)
    elif not connection.is_closed:
        connection.write_last(_head(connection, response, len(body), False, now))


async def _send_large(
    connection: Connection, request: Request, response: Response, body: bytes, now: float
) -> None:
    if connection.is_closed:
        return
    first, *slices = range(0, len(body), SLICE)
    data = _head(connection, response, len(body), False, now) + body[first:SLICE]
    for start in slices:
        await connection.write(data)
        data = body[start : start + SLICE]
    connection.write_last(data)


async def _send_stream(
    connection: Connection,
    request: Request,
    response: Response,
    body: AsyncIterator[bytes],
    now: float,
) -> None:
    try:
        acceptable = CompressedStream.is_possible()
        size = _stated_length(response)
        response, coding = negotiated(request, response, size, acceptable)
        if coding is not None:
            body = CompressedStream(coding, body)
        await _send_parts(connection, request, response, body, now)
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


def _stated_length(response: Response) -> int | None:
    stated = response.header("content-length")
    return None if stated is None else int(stated)


async def _send_parts(
    connection: Connection,
    request: Request,
    response: Response,
    body: AsyncIterator[bytes],
    now: float,
) -> None:
    if connection.is_closed:
        raise ClientDisconnected
    left = _stated_length(response)
    wants_body = has_body(request, response)
    chunked = left is None and wants_body and not connection.is_http10
    if left is None and wants_body and not chunked:
        connection.end_with_close()  # the end of the connection is the end of the body
    head = _head(connection, response, None, chunked, now)
    if not wants_body:
        connection.write_last(head)
        return
    # The head waits for the first part of the body, which mostly is there: one packet less.
    async for data in body:
        if left is not None:
            left -= len(data)
            if left < 0:
                raise ValueError("the body is longer than its Content-Length")
        if data:
            await connection.write(head + (chunk(data) if chunked else data))
            head = b""
    if left:
        raise ValueError("the body is shorter than its Content-Length")
    connection.write_last(head + (LAST_CHUNK if chunked else b""))


def _head(
    connection: Connection, response: Response, length: int | None, chunked: bool, now: float
) -> bytes:
    keep_alive = connection.begin_response()
    option = _connection_option(connection, keep_alive)
    return render_head(response, length, chunked=chunked, connection=option, now=now)


def _connection_option(connection: Connection, keep_alive: bool) -> str | None:
    if not keep_alive:
        return "close"
    return "keep-alive" if connection.is_http10 else None
