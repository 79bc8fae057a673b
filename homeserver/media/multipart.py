"""Bodies of two parts, as homeservers give each other files (RFC 2046, "multipart").

Reading takes a body as it arrives and holds no more of it than a chunk.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Mapping

MAX_HEAD = 16 * 1024
"""Bytes of the headers of one part."""

_BOUNDARY = re.compile(
    r";\s*boundary\s*=\s*(?:\"([^\"\r\n]{1,70})\"|([A-Za-z0-9'()+_,./:=?-]{1,70}))", re.IGNORECASE
)
_MAX_PREAMBLE = 4 * 1024


class BadMultipart(Exception):
    """A body is not what its type says."""


def boundary_of(content_type: str) -> bytes:
    """The boundary in a content type. Raises BadMultipart."""
    if not content_type.strip().lower().startswith("multipart/"):
        raise BadMultipart("the answer is not multipart")
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise BadMultipart("the answer has no boundary")
    return (match[1] or match[2]).encode("latin-1")


class MultipartReader:
    """Reads part by part: `next_part`, then `body` to its end."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Raises BadMultipart."""
        self._delimiter = b"\r\n--" + boundary_of(content_type)
        self._chunks = chunks
        self._buffer = b""
        self._begun = False

    async def next_part(self) -> dict[str, str] | None:
        """The headers of the next part, their names in lower case; None at the end."""
        if not self._begun:
            self._begun = True
            size = 0
            async for data in self.body():
                size += len(data)
                if size > _MAX_PREAMBLE:
                    raise BadMultipart("the first part does not begin")
        rest = await self._line(MAX_HEAD)
        if rest.startswith(b"--"):
            return None
        if rest.strip(b" \t"):
            raise BadMultipart("a boundary is malformed")
        headers: dict[str, str] = {}
        size = 0
        while line := await self._line(MAX_HEAD):
            size += len(line)
            name, colon, value = line.decode("utf-8", "replace").partition(":")
            if not colon or size > MAX_HEAD:
                raise BadMultipart("the headers of a part are malformed")
            headers[name.strip().lower()] = value.strip()
        return headers

    async def body(self) -> AsyncIterator[bytes]:
        """The part, to be read to its end. Raises BadMultipart if it has none."""
        bare = self._delimiter[2:]
        while len(self._buffer) < len(bare) and bare.startswith(self._buffer):
            await self._more()
        if self._buffer.startswith(bare):  # a part without a body ends where it begins
            self._buffer = self._buffer[len(bare) :]
            return
        while True:
            end = self._buffer.find(self._delimiter)
            # What may be the beginning of a delimiter stays.
            known = end if end >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
            data, self._buffer = self._buffer[:known], self._buffer[known:]
            if data:
                yield data
            if end >= 0:
                self._buffer = self._buffer[len(self._delimiter) :]
                return
            await self._more()

    async def _line(self, limit: int) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > limit:
                raise BadMultipart("a line is too long")
            if self._buffer.startswith(b"--"):
                return self._buffer  # the end, which need not have a line of its own
            await self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._chunks)
        except StopAsyncIteration:
            raise BadMultipart("the answer breaks off") from None


class MultipartWriter:
    """Writes a body of an empty JSON object and a part with the given headers."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/mixed; boundary={boundary}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
            f"--{boundary}\r\n{lines}\r\n"
        ).encode()
        self._end = f"\r\n--{boundary}--\r\n".encode()

    def length(self, size: int) -> int:
        """How long the body is if the file is of this size."""
        return len(self._head) + size + len(self._end)

    async def body(self, file: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
        """The body around a file, or around nothing."""
        try:
            yield self._head
            if file is not None:
                async for data in file:
                    yield data
            yield self._end
        finally:
            if file is not None:
                await file.aclose()  # type: ignore[attr-defined]
