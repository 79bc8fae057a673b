"""What an endpoint may answer besides a plain struct or dict (which becomes JSON, status 200)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from homeserver.core.errors import MatrixError

CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, PATCH, OPTIONS",
    "Access-Control-Allow-Headers": (
        "X-Requested-With, Content-Type, Authorization, If-Match, If-None-Match"
    ),
    # Of rendezvous, which compare them.
    "Access-Control-Expose-Headers": "ETag",
}
"""Client-server API, "Web Browser Clients"."""

JSON_TYPE = "application/json"


class _Fixed(dict[str, str]):
    """Headers of many answers, which nobody may change."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("these headers are those of many answers")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


JSON_HEADERS: dict[str, str] = _Fixed({"Content-Type": JSON_TYPE})
"""Those of an answer that is nothing but JSON."""
JSON_CORS_HEADERS: dict[str, str] = _Fixed({"Content-Type": JSON_TYPE, **CORS_HEADERS})
"""The same for clients."""


class Response:
    """An answer with its own status or headers.

    `body`: bytes are sent as they are; an async iterator of bytes is streamed with back-pressure
    (`Content-Length` in `headers` if known); None is an empty body; anything else becomes JSON.
    Header names are written as given here.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body: Any | bytes | AsyncIterator[bytes] | None = body
        self.headers: dict[str, str] = dict(headers) if headers else {}

    @classmethod
    def of_json(cls, status: int, data: bytes) -> Response:
        """An answer of encoded JSON. Its headers are those of many: nobody may change them."""
        made = cls(status, data)
        made.headers = JSON_HEADERS
        return made

    def header(self, name: str) -> str | None:
        """The value of a header, its name in any case."""
        name = name.lower()
        return next((v for k, v in self.headers.items() if k.lower() == name), None)


class RawJson:
    """JSON that is already encoded; sent as it is."""

    __slots__ = ("data", "status")

    def __init__(self, data: bytes, status: int = 200) -> None:
        self.data = data
        self.status = status


class Empty(msgspec.Struct, frozen=True):
    """The answer `{}`."""


EMPTY = Empty()


def redirect(location: str) -> Response:
    """302 to another address."""
    return Response(302, b"", {"Location": location})


def _encode_other(value: Any) -> str:
    if isinstance(value, str):  # UserID and the like
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a JSON response")


_encoder = msgspec.json.Encoder(enc_hook=_encode_other)


def encode_json(value: Any) -> bytes:
    """UTF-8 JSON of structs, dicts, lists and identifiers; `msgspec.Raw` parts are spliced in."""
    return _encoder.encode(value)


def error_response(error: MatrixError) -> Response:
    """The response that tells a client of an error."""
    headers = {"Content-Type": JSON_TYPE, **error.headers}
    retry_after_ms = error.extra.get("retry_after_ms")
    if isinstance(retry_after_ms, int):
        headers["Retry-After"] = str(math.ceil(retry_after_ms / 1000))
    return Response(error.status, encode_json(error.body()), headers)
