"""Requests to other homeservers: signed, bounded, their faults as `RemoteError`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import (
    BadAnswer,
    InvalidDestination,
    RemoteError,
    RemoteHttpError,
    RemoteTimeout,
    Unreachable,
)
from federation.client.signer import RequestSigner, encode_content
from homeserver.core import canonical
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.core.signing import SigningKey
from homeserver.core.types import JsonObject

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_MAX_BYTES = 50 * 1024 * 1024
"""The largest answer that is read unless the caller knows better: states of large rooms."""

_MAX_ERROR_BYTES = 64 * 1024

Query = Mapping[str, str | list[str]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, its `Retry-After` header if any, and the whole body."""

    status: int
    retry_after: str | None
    body: bytes


class FederationAgent(Protocol):
    """Carries one HTTP request to a homeserver; `federation.client.agent.Agent` does."""

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
        """Send the request and read the answer, whatever its status.

        At most `max_bytes` of body are read, `max_error_bytes` where the status is not 2xx.
        Raises `Unreachable` and `BadAnswer`. Cancelling closes the connection.
        """
        ...


def federation_path(template: str, *parts: str) -> str:
    """Fill the `{}` of a path with percent-encoded parts."""
    return template.format(*(quote(part, safe="") for part in parts))


class FederationClient:
    """Asks other homeservers, as `server_name`."""

    def __init__(
        self, server_name: str, key: SigningKey, agent: FederationAgent, clock: IReactorTime
    ) -> None:
        self._server_name = server_name
        self._signer = RequestSigner(server_name, key)
        self._agent = agent
        self._clock = clock

    async def get_json(
        self,
        destination: str,
        path: str,
        *,
        query: Query | None = None,
        signed: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_bytes: int = DEFAULT_MAX_BYTES,
        read: Callable[[bytes], Any] = canonical.parse,
    ) -> JsonObject:
        """GET a JSON object.

        Parameters: `destination` is a server name before any delegation; `path` is
        percent-encoded (see `federation_path`); `signed` is False for what needs no
        authorisation; `timeout_s` (seconds) spans discovery to the last byte; an answer of more
        than `max_bytes` is refused; `read` parses the answer, or raises `canonical.NotJSON`.
        Raises `RemoteError` in its kinds, nothing else of theirs.
        """
        return _object(
            destination,
            await self.request(
                "GET",
                destination,
                path,
                query=query,
                signed=signed,
                timeout_s=timeout_s,
                max_bytes=max_bytes,
                read=read,
            ),
        )

    async def put_json(
        self,
        destination: str,
        path: str,
        body: JsonObject,
        *,
        query: Query | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> JsonObject:
        """PUT a JSON object and read one; as `get_json`.

        A PUT is sent a second time if the connection closed without an answer: each PUT of the
        specification may be repeated.
        """
        return _object(
            destination,
            await self.request(
                "PUT",
                destination,
                path,
                query=query,
                body=body,
                timeout_s=timeout_s,
                max_bytes=max_bytes,
            ),
        )

    async def put_encoded(
        self,
        destination: str,
        path: str,
        content: bytes,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> JsonObject:
        """`put_json` with a body that is canonical JSON already."""
        return _object(
            destination,
            await self.request(
                "PUT",
                destination,
                path,
                body=content,
                timeout_s=timeout_s,
                max_bytes=max_bytes,
            ),
        )

    async def probe(self, destination: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """See whether a server answers at all; raises `Unreachable`."""
        try:
            await self.request(
                "GET",
                destination,
                "/_matrix/federation/v1/version",
                signed=False,
                timeout_s=timeout_s,
                max_bytes=_MAX_ERROR_BYTES,
            )
        except Unreachable:
            raise
        except RemoteError:
            # It answers: what it says is of no interest.
            return

    async def post_json(
        self,
        destination: str,
        path: str,
        body: JsonObject,
        *,
        query: Query | None = None,
        signed: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> JsonObject:
        """POST a JSON object and read one; as `get_json`. Sent once at most."""
        return _object(
            destination,
            await self.request(
                "POST",
                destination,
                path,
                query=query,
                body=body,
                signed=signed,
                timeout_s=timeout_s,
                max_bytes=max_bytes,
            ),
        )

    async def request(
        self,
        method: str,
        destination: str,
        path: str,
        *,
        query: Query | None = None,
        body: JsonObject | bytes | None = None,
        signed: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_bytes: int = DEFAULT_MAX_BYTES,
        read: Callable[[bytes], Any] = canonical.parse,
    ) -> Any:
        """Send a request and give the JSON value of its answer, of any type.

        As `get_json`; the version 1 endpoints that answer with an array need it. `body` may be
        given as canonical JSON. Raises
        `CanonicalJSONError` for a body of ours that has no JSON form.
        """
        name = self._checked(destination)
        uri = path if not query else f"{path}?{urlencode(query, doseq=True)}"
        content = encode_content(body) if isinstance(body, dict) else body
        headers = {}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if signed:
            headers["Authorization"] = self._signer.authorization(method, uri, destination, content)
        asking = Deferred.fromCoroutine(
            self._agent.request(
                method,
                name,
                uri,
                headers,
                content,
                max_bytes=max_bytes,
                max_error_bytes=min(max_bytes, _MAX_ERROR_BYTES),
            )
        )
        asking.addTimeout(timeout_s, self._clock)
        try:
            value = _value(destination, await asking, read)
        except DeferredTimeout:
            error = RemoteTimeout(destination, f"no complete answer in {timeout_s:g} s")
            _log.info("federation request failed", method=method, path=path, reason=str(error))
            raise error from None
        except RemoteError as error:
            _log.info("federation request failed", method=method, path=path, reason=str(error))
            raise
        return value

    def _checked(self, destination: str) -> ServerName:
        try:
            name = ServerName.parse(destination)
        except InvalidIdentifier as error:
            raise InvalidDestination(destination, error.reason) from None
        if destination.lower() == self._server_name.lower():
            raise InvalidDestination(destination, "that is this server itself")
        return name


def _value(destination: str, answer: Answer, read: Callable[[bytes], Any]) -> Any:
    if not 200 <= answer.status < 300:
        raise _http_error(destination, answer)
    try:
        return read(answer.body)
    except canonical.NotJSON as error:
        raise BadAnswer(destination, str(error)) from None


def _object(destination: str, value: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise BadAnswer(destination, "answered with JSON that is not an object")
    return value


def _http_error(destination: str, answer: Answer) -> RemoteHttpError:
    try:
        body = canonical.parse_object(answer.body)
    except canonical.NotJSON:
        body = {}
    return RemoteHttpError(destination, answer.status, body, _retry_after_ms(answer, body))


def _retry_after_ms(answer: Answer, body: JsonObject) -> int | None:
    """How long to wait, from the header (seconds) or else the body's `retry_after_ms`."""
    if answer.retry_after is not None:
        seconds = answer.retry_after.strip()
        if seconds.isascii() and seconds.isdigit() and len(seconds) < 10:
            return int(seconds) * 1000
    wait = body.get("retry_after_ms")
    return wait if isinstance(wait, int) and not isinstance(wait, bool) and wait >= 0 else None
