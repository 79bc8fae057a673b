"""A client of a router in the same process: no sockets, and every answer is checked.

Each 2xx JSON answer must fit the response type that the endpoint declares; if not, the request
raises AssertionError in the test that made it.
"""

from __future__ import annotations

import json as stdlib_json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from homeserver.web.request import Request
from homeserver.web.responses import Response
from homeserver.web.router import Router
from homeserver.web.schema import parse_identifier
from homeserver.web.signature import alternatives, describe


class Answer(NamedTuple):
    """Status and body: parsed if it is JSON, else bytes."""

    status: int
    body: Any


class FullAnswer(NamedTuple):
    """Status, body and headers (names in lower case)."""

    status: int
    body: Any
    headers: dict[str, str]


class Client:
    """Sends requests to `router`; `token` is used where a call gives none."""

    def __init__(
        self, router: Router, token: str | None = None, address: str = "127.0.0.1"
    ) -> None:
        self.router = router
        self.token = token
        self.address = address

    def with_token(self, token: str | None) -> Client:
        return Client(self.router, token, self.address)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def put(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.request("PUT", path, json, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, json, **options)

    async def delete(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.request("DELETE", path, json, **options)

    async def request(self, method: str, path: str, json: Any = None, **options: Any) -> Answer:
        """Send a request; the options are those of `build`."""
        answer = await self.full(method, path, json, **options)
        return Answer(answer.status, answer.body)

    async def full(self, method: str, path: str, json: Any = None, **options: Any) -> FullAnswer:
        """As `request`, with the headers."""
        return await self.send(self.build(method, path, json, **options))

    def build(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        body: bytes | None = None,
        query: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> Request:
        """A request. `path` must be percent-encoded and may hold a query; `json` of None is an
        empty body; `body` is sent as it is; lists in `query` are repeated."""
        if query is not None:
            path += ("&" if "?" in path else "?") + urlencode(_texts(query), doseq=True)
        if body is None:
            body = b"" if json is None else stdlib_json.dumps(json).encode()
        raw = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
        token = self.token if token is None else token
        if token:
            raw.setdefault(b"authorization", b"Bearer " + token.encode())
        return Request(method, path, raw, body, self.address if address is None else address)

    async def send(self, request: Request) -> FullAnswer:
        """Send a request that `build` made, and check the answer."""
        if self.router.body_plan(request).stream:
            request.body_stream, request.body = _stream(request.body), b""
        response = await self.router.handle(request)
        headers = {name.lower(): value for name, value in response.headers.items()}
        data = await _collect(response)
        body: Any = data
        if headers.get("content-type", "").partition(";")[0] == "application/json":
            body = stdlib_json.loads(data)
            check_answer(self.router, request, response.status, data)
        return FullAnswer(response.status, body, headers)


def check_answer(router: Router, request: Request, status: int, data: bytes) -> None:
    """Raise AssertionError if a JSON answer is not what its endpoint declares."""
    if status >= 400:
        error = stdlib_json.loads(data)
        is_error = isinstance(error, dict) and {"errcode", "error"} <= error.keys()
        # User-interactive authentication answers its stages with 401.
        assert is_error or (status == 401 and "flows" in error), f"not a standard error: {error}"
        return
    declaration = router.declaration_for(request.method, request.path)
    if declaration is None or not 200 <= status < 300:
        return
    kinds = alternatives(describe(declaration).response)
    faults = [fault for kind in kinds if (fault := _misfit(kind, data)) is not None]
    assert not kinds or len(faults) < len(kinds), (
        f"{declaration.name} answered what it does not declare: {'; '.join(faults)}"
    )


def _misfit(kind: Any, data: bytes) -> str | None:
    try:
        msgspec.json.decode(data, type=kind, dec_hook=parse_identifier)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _texts(query: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    pairs = query.items() if isinstance(query, Mapping) else query
    return [
        (name, str(value).lower() if isinstance(value, bool) else value) for name, value in pairs
    ]


async def _stream(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]


async def _collect(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    assert response.body is not None
    return b"".join([chunk async for chunk in response.body])
