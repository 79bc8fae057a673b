"""Asking other homeservers for files (server-server API, "Content Repository").

A file comes as a multipart body whose second part is the file or tells where it is; servers from
before version 1.11 of the specification give it at a path of the client-server API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from federation.client.agent import Agent
from federation.client.errors import InvalidDestination, RemoteHttpError, RemoteTimeout
from federation.client.requests import federation_path
from federation.client.signer import RequestSigner
from homeserver.core.ids import InvalidIdentifier, ServerName

if TYPE_CHECKING:
    from federation.client.https import StreamedAnswer

STALLED_S = 30.0
"""Seconds without data after which another server is given up."""

_MAX_ERROR = 64 * 1024


class MediaCalls:
    """Asks for files. Answers must be closed. All methods raise `RemoteError`."""

    def __init__(
        self, server_name: str, signer: RequestSigner, agent: Agent, clock: IReactorTime
    ) -> None:
        self._clock = clock
        self._server_name = server_name
        self._signer = signer
        self._agent = agent

    async def download(
        self, destination: str, media_id: str, wait_ms: int, max_bytes: int
    ) -> StreamedAnswer:
        """A file of that server, as multipart; `wait_ms` for one that is to come."""
        path = federation_path("/_matrix/federation/v1/media/download/{}", media_id)
        query = {"timeout_ms": wait_ms}
        return await self._signed(destination, path, query, wait_ms, max_bytes)

    async def thumbnail(
        self,
        destination: str,
        media_id: str,
        query: Mapping[str, str | int],
        wait_ms: int,
        max_bytes: int,
    ) -> StreamedAnswer:
        """A thumbnail of a file of that server, as multipart."""
        path = federation_path("/_matrix/federation/v1/media/thumbnail/{}", media_id)
        query = {**query, "timeout_ms": wait_ms}
        return await self._signed(destination, path, query, wait_ms, max_bytes)

    async def legacy_download(
        self, destination: str, media_id: str, wait_ms: int, max_bytes: int
    ) -> StreamedAnswer:
        """A file of that server, as it is; or a redirect."""
        path = federation_path("/_matrix/media/v3/download/{}/{}", destination, media_id)
        query = {"allow_remote": "false", "allow_redirect": "true", "timeout_ms": wait_ms}
        uri = f"{path}?{urlencode(query)}"
        name = self._checked(destination)
        return await self._open(name, uri, {}, wait_ms, max_bytes, redirects=True)

    async def _signed(
        self,
        destination: str,
        path: str,
        query: Mapping[str, str | int],
        wait_ms: int,
        max_bytes: int,
    ) -> StreamedAnswer:
        name = self._checked(destination)
        uri = f"{path}?{urlencode(query)}"
        headers = {"Authorization": self._signer.authorization("GET", uri, destination, None)}
        return await self._open(name, uri, headers, wait_ms, max_bytes)

    async def _open(
        self,
        destination: ServerName,
        uri: str,
        headers: Mapping[str, str],
        wait_ms: int,
        max_bytes: int,
        *,
        redirects: bool = False,
    ) -> StreamedAnswer:
        opening = Deferred.fromCoroutine(
            self._agent.open(destination, uri, headers, max_bytes=max_bytes, stalled_s=STALLED_S)
        )
        opening.addTimeout(wait_ms / 1000 + STALLED_S, self._clock)
        try:
            answer = await opening
        except DeferredTimeout:
            raise RemoteTimeout(destination, "no answer in time") from None
        if 200 <= answer.status < 300 or (redirects and 300 <= answer.status < 400):
            return answer
        try:
            raise RemoteHttpError(destination, answer.status, await _error_body(answer))
        finally:
            answer.close()

    def _checked(self, destination: str) -> ServerName:
        try:
            name = ServerName.parse(destination)
        except InvalidIdentifier as error:
            raise InvalidDestination(destination, error.reason) from None
        if destination.lower() == self._server_name.lower():
            raise InvalidDestination(destination, "that is this server itself")
        return name


async def _error_body(answer: StreamedAnswer) -> dict[str, Any]:
    body = b""
    async for data in answer:
        body += data
        if len(body) > _MAX_ERROR:
            return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
