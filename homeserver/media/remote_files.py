"""How other servers are asked for a file: today's way, the way before, and where they point to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin

from federation.client.errors import BadAnswer, RemoteHttpError
from federation.client.media import STALLED_S, MediaCalls
from homeserver.media.multipart import BadMultipart, MultipartReader
from homeserver.media.spool import Incoming
from homeserver.outbound.http import OutgoingHttpClient

if TYPE_CHECKING:
    from federation.client.https import StreamedAnswer

MAX_REDIRECTS = 5

_OVERHEAD = 128 * 1024
"""Bytes of a multipart body beside the file."""
_MAX_METADATA = 64 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)

Take = Callable[[AsyncIterator[bytes]], Awaitable[Incoming]]
"""Writes what comes to a file."""


class Description(NamedTuple):
    """What another server says of its file."""

    content_type: str | None
    disposition: str | None


class Transfer(NamedTuple):
    """A file that has come."""

    described: Description
    incoming: Incoming


class RemoteFiles:
    """Asks other servers. All methods raise `RemoteError`."""

    def __init__(self, calls: MediaCalls, web: OutgoingHttpClient, max_bytes: int) -> None:
        self._calls = calls
        self._web = web
        self._max_bytes = max_bytes

    async def download(self, server_name: str, media_id: str, wait_ms: int, take: Take) -> Transfer:
        """A file of that server."""
        limit = self._max_bytes + _OVERHEAD
        try:
            answer = await self._calls.download(server_name, media_id, wait_ms, limit)
        except RemoteHttpError as error:
            if not _is_unknown_endpoint(error):
                raise
            answer = await self._calls.legacy_download(server_name, media_id, wait_ms, limit)
            if answer.status in _REDIRECTS:
                answer.close()
                location = answer.headers.get("location", "")
                return await self._redirected(server_name, location, take, None)
            return await _plain(answer, take, None)
        return await self._from_multipart(server_name, answer, take)

    async def thumbnail(
        self,
        server_name: str,
        media_id: str,
        query: Mapping[str, str | int],
        wait_ms: int,
        take: Take,
    ) -> Incoming:
        """A thumbnail of a file of that server."""
        limit = self._max_bytes + _OVERHEAD
        answer = await self._calls.thumbnail(server_name, media_id, query, wait_ms, limit)
        return (await self._from_multipart(server_name, answer, take)).incoming

    async def _from_multipart(
        self, server_name: str, answer: StreamedAnswer, take: Take
    ) -> Transfer:
        try:
            reader = MultipartReader(answer.headers.get("content-type", ""), answer)
            if await reader.next_part() is None:
                raise BadMultipart("the answer has no parts")
            size = 0
            async for data in reader.body():
                size += len(data)
                if size > _MAX_METADATA:
                    raise BadMultipart("the first part is too long")
            headers = await reader.next_part()
            if headers is None:
                raise BadMultipart("the answer has one part only")
            described = _described(headers)
            location = headers.get("location")
            if location is None:
                return Transfer(described, await take(reader.body()))
        except BadMultipart as error:
            raise BadAnswer(server_name, str(error)) from None
        finally:
            answer.close()
        return await self._redirected(server_name, location, take, described)

    async def _redirected(
        self, server_name: str, location: str, take: Take, described: Description | None
    ) -> Transfer:
        """The file at an address that the server gave, wherever on the web that is.

        The guard of `OutgoingHttpClient` judges each address that is connected to.
        """
        url = location
        for _ in range(MAX_REDIRECTS):
            answer = await self._web.open(url, max_bytes=self._max_bytes, stalled_s=STALLED_S)
            if answer.status not in _REDIRECTS:
                if answer.status != 200:
                    answer.close()
                    raise RemoteHttpError(server_name, answer.status)
                return await _plain(answer, take, described)
            answer.close()
            try:
                url = urljoin(url, answer.headers.get("location", ""))
            except ValueError:
                raise BadAnswer(server_name, "redirects to what is no URL") from None
        raise BadAnswer(server_name, "redirects without end")


async def _plain(answer: StreamedAnswer, take: Take, described: Description | None) -> Transfer:
    """An answer that is the file. What the server itself said of it goes first."""
    try:
        found = _described(answer.headers)
        if described is not None and described.content_type is not None:
            found = described
        return Transfer(found, await take(answer))
    finally:
        answer.close()


def _described(headers: Mapping[str, str]) -> Description:
    return Description(headers.get("content-type"), headers.get("content-disposition"))


def _is_unknown_endpoint(error: RemoteHttpError) -> bool:
    """Whether the server is from before authenticated media."""
    if error.errcode == "M_UNRECOGNIZED":
        return True
    return error.status in (404, 405) and error.errcode is None
