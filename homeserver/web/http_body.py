"""The body of a request while it still arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred

from homeserver.core.errors import MatrixError

HIGH_WATER = 64 * 1024
"""Buffered bytes from which on the client is not read from."""


class BodyStream:
    """An async iterator of bytes with back-pressure, for one reader.

    Reading raises MatrixError: 413 beyond the endpoint's `max_body`, 400 for a malformed body,
    408 for one that stopped arriving, ClientDisconnected.
    """

    __slots__ = ("_chunks", "_ended", "_error", "_on_read", "_size", "_waiting")

    def __init__(self, on_read: Callable[[], None]) -> None:
        """`on_read` is called before each wait for more data."""
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: MatrixError | None = None
        self._waiting: Deferred[None] | None = None
        self._on_read = on_read

    @property
    def is_full(self) -> bool:
        """Whether the client should not be read from now."""
        return self._size >= HIGH_WATER

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        self._wake()

    def end(self) -> None:
        """All data is here."""
        self._ended = True
        self._wake()

    def fail(self, error: MatrixError) -> None:
        """Let the reader see `error` after what is buffered."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._on_read()
            if self._chunks or self._ended or self._error is not None:
                continue
            self._waiting = Deferred()
            await self._waiting
        data = self._chunks.popleft()
        self._size -= len(data)
        return data
