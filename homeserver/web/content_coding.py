"""Compressed answers: what a client takes, what is worth it, and how it is done.

RFC 9110, "Content Codings", "Accept-Encoding" and "Vary". gzip is ISA-L's, which takes a third of
the time of zlib's fastest level for about the same size; zstd (RFC 8878) makes less still.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Protocol

import zstandard
from isal import isal_zlib

from homeserver.web.request import Request
from homeserver.web.responses import Response

COMPRESS_FROM = 4096
"""Smaller bodies in bytes are sent as they are: compressing costs more than it saves."""

MAX_STREAMS = 100
"""How many bodies are compressed while they are made; each holds up to 600 kB while it lasts."""

CODINGS = ("zstd", "gzip")
"""Where a client takes several as gladly, the first of them is chosen."""

_TYPES = ("application/json", "application/javascript", "image/svg+xml", "text/")
_LEVEL = 1
_GZIP = 16 + 15
_WEIGHT = re.compile(rb"[Qq]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_REMEMBERED = 200
# Bytes of window: an answer of the size of most is smaller than that anyway.
_STREAMED = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=17)
_own_zstd = zstandard.ZstdCompressor(level=_LEVEL)


def accepted(header: bytes | None) -> str | None:
    """The coding in which a client with this Accept-Encoding gets its answer; None: as it is."""
    if not header:
        return None
    return _remembered(header) if len(header) <= _REMEMBERED else _choose(header)


def _choose(header: bytes) -> str | None:
    weights: dict[bytes, float] = {}
    for element in header.split(b","):
        name, *parameters = (part.strip(b" \t") for part in element.split(b";"))
        weights.setdefault(name.lower(), _weight(parameters))
    others = weights.get(b"*", 0.0)
    best, chosen = weights.get(b"identity", 0.0), None
    for coding in CODINGS:
        weight = weights.get(coding.encode("ascii"), others)
        if coding == "gzip":
            weight = max(weight, weights.get(b"x-gzip", 0.0))
        if weight > 0.0 and (weight > best or (weight == best and chosen is None)):
            best, chosen = weight, coding
    return chosen


_remembered = lru_cache(maxsize=256)(_choose)


def _weight(parameters: list[bytes]) -> float:
    """The weight of a coding; what is malformed is not accepted."""
    if not parameters:
        return 1.0
    match = _WEIGHT.fullmatch(parameters[0])
    return float(match[1]) if match is not None and len(parameters) == 1 else 0.0


def may_vary(response: Response, size: int | None) -> bool:
    """Whether a body of `size` bytes (None: not known) is compressed for those who take that.

    Not if it is a part of something, if its bytes have a name (a strong ETag), or if nobody on the
    way may change it.
    """
    if size is not None and size < COMPRESS_FROM:
        return False
    headers = {name.lower(): value for name, value in response.headers.items()}
    return (
        headers.get("content-type", "").startswith(_TYPES)
        and "content-encoding" not in headers
        and "content-range" not in headers
        and not headers.get("etag", "").startswith('"')
        and "no-transform" not in headers.get("cache-control", "")
    )


def negotiated(
    request: Request, response: Response, size: int | None, possible: bool = True
) -> tuple[Response, str | None]:
    """The answer with the headers for its coding, and the coding; None: the body as it is.

    `possible` says whether there is a choice at all. The length of what is not coded is taken out.
    """
    if not may_vary(response, size):
        return response, None
    coding = accepted(request.headers.get(b"accept-encoding")) if possible else None
    left_out = ("vary",) if coding is None else ("vary", "content-length")
    headers = {k: v for k, v in response.headers.items() if k.lower() not in left_out}
    # Also on what is not compressed: a cache must not give it to everybody, nor the other.
    vary = response.header("vary") or "Accept-Encoding"
    if "*" not in vary and "accept-encoding" not in vary.lower():
        vary += ", Accept-Encoding"
    headers["Vary"] = vary
    if coding is not None:
        headers["Content-Encoding"] = coding
    return Response(response.status, response.body, headers), coding


def compress(coding: str, data: bytes) -> bytes:
    """The whole of a body, compressed in this thread, which must be the reactor's."""
    if coding == "gzip":
        return isal_zlib.compress(data, _LEVEL, wbits=_GZIP)
    return _own_zstd.compress(data)


def compress_in_thread(coding: str, data: bytes) -> bytes:
    """The same in any thread; the interpreter lock is not held."""
    if coding == "gzip":
        return isal_zlib.compress(data, _LEVEL, wbits=_GZIP)
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class CompressedStream:
    """A body that is compressed as it comes: an async iterator of bytes. `aclose` it at the end.

    What a part of a body becomes may come with a later part. Parts should be small enough to be
    compressed between two other things (a hundred kB take 0.2 ms).
    """

    running = 0

    def __init__(self, coding: str, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._compressor: _Compressor | None = (
            isal_zlib.compressobj(_LEVEL, wbits=_GZIP)
            if coding == "gzip"
            else zstandard.ZstdCompressor(compression_params=_STREAMED).compressobj()
        )
        CompressedStream.running += 1

    @classmethod
    def is_possible(cls) -> bool:
        """Whether one more is not too many."""
        return cls.running < MAX_STREAMS

    def __aiter__(self) -> CompressedStream:
        return self

    async def __anext__(self) -> bytes:
        while self._compressor is not None:
            try:
                data = self._compressor.compress(await self._body.__anext__())
            except StopAsyncIteration:
                data = self._compressor.flush()
                self._let_go()
            if data:
                return data
        raise StopAsyncIteration

    def _let_go(self) -> None:
        if self._compressor is not None:
            self._compressor = None
            CompressedStream.running -= 1

    async def aclose(self) -> None:
        """End both this and the body."""
        self._let_go()
        close = getattr(self._body, "aclose", None)
        if close is not None:
            await close()
