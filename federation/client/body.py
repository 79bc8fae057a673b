"""Bodies of answers: read whole, or as they arrive."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from federation.client.answer_head import AnswerHead

if TYPE_CHECKING:
    from federation.client.connection import Connection

HIGH_WATER = 128 * 1024
"""Bytes that wait for their reader from which on the other side is not read from."""
_MANY_PARTS = 4096
"""So many are put together: of parts of a few bytes each, what Python needs for one is most."""


class TooLarge(Exception):
    """The answer is larger than it may be. Its connection was closed."""


class Stalled(Exception):
    """Nothing of the answer came for too long. Its connection was closed."""


class NoEnd(Exception):
    """The body ended with its connection: nobody knows whether it is whole."""


class WholeReader:
    """Takes an answer into memory; `done` fires with (head, body) when it is whole.

    `max_bytes` bounds the body of a 2xx answer, `max_error_bytes` that of others: `done` fails
    with `TooLarge` beyond, or with `cut` gives the beginning. Cancelling it closes the connection.
    """

    __slots__ = (
        "_cut",
        "_head",
        "_joined",
        "_left",
        "_max_bytes",
        "_max_error_bytes",
        "_parts",
        "connection",
        "done",
    )

    connection: Connection

    def __init__(self, max_bytes: int, max_error_bytes: int, cut: bool) -> None:
        self._max_bytes = max_bytes
        self._max_error_bytes = max_error_bytes
        self._cut = cut
        self._left = 0
        self._parts: list[bytes] = []
        self._joined = 0
        self._head: AnswerHead | None = None
        self.done: Deferred[tuple[AnswerHead, bytes]] = Deferred(self._cancel)

    def begin(self, head: AnswerHead) -> None:
        """The head has come. Raises `TooLarge`."""
        self._head = head
        self._left = self._max_bytes if 200 <= head.status < 300 else self._max_error_bytes
        if not self._cut and head.length is not None and head.length > self._left:
            raise TooLarge

    def take(self, data: bytes) -> None:
        """A part of the body has come. Raises `TooLarge`."""
        self._left -= len(data)
        if self._left >= 0:
            self._parts.append(data)
            if len(self._parts) - self._joined > _MANY_PARTS:
                self._parts[self._joined :] = [b"".join(self._parts[self._joined :])]
                self._joined += 1
        elif self._cut:
            self._parts.append(data[: self._left])
            self.connection.abort()
            self.end()
        else:
            raise TooLarge

    def end(self, *, is_sure: bool = True) -> None:
        """That was all. Without a length the body ends with its connection: what is in it shows
        whether it was cut off."""
        assert self._head is not None
        if not self.done.called:
            self.done.callback((self._head, b"".join(self._parts)))

    def fail(self, error: BaseException) -> None:
        """The answer does not go on."""
        self._parts.clear()
        if not self.done.called:
            self.done.errback(error)

    def _cancel(self, _: object) -> None:
        self._parts.clear()
        self.connection.abort()


class BodyReader:
    """The body of an answer as it arrives: an async iterator for one reader, with back-pressure.

    `begun` fires with the head; cancelling it closes the connection. Reading raises `TooLarge`
    beyond `max_bytes`, `Stalled` after `stalled_s` seconds without data, and what ended a body
    that is not whole. `close` ends it early.
    """

    connection: Connection

    def __init__(self, clock: IReactorTime, max_bytes: int, stalled_s: float) -> None:
        self._clock = clock
        self._left = max_bytes
        self._stalled_s = stalled_s
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._failure: BaseException | None = None
        self._waiting: Deferred[None] | None = None
        self.begun: Deferred[AnswerHead] = Deferred(lambda _: self.connection.abort())

    def begin(self, head: AnswerHead) -> None:
        """The head has come."""
        if not self.begun.called:
            self.begun.callback(head)

    def take(self, data: bytes) -> None:
        """A part of the body has come. Raises `TooLarge`."""
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge
        self._parts.append(data)
        self._size += len(data)
        if self._size >= HIGH_WATER and not self._paused:
            self._paused = True
            self.connection.pause()
        self._wake()

    def end(self, *, is_sure: bool = True) -> None:
        """That was all; or so it seems, since the connection ended."""
        self._end(None if is_sure else NoEnd("the connection ended in an answer without a length"))

    def fail(self, error: BaseException) -> None:
        """The answer does not go on."""
        if self.begun.called:
            self._end(error)
        else:
            self._ended = True
            self.begun.errback(error)

    def _end(self, failure: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def close(self) -> None:
        """Read no more; the connection ends if there is more to come."""
        if not self._ended:
            self._end(None)
            self.connection.leave()
        self._parts.clear()

    def __aiter__(self) -> BodyReader:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            if self._paused:
                self._paused = False
                self.connection.resume()
            if not self._parts and not self._ended:
                await self._more()
        data = self._parts.popleft()
        self._size -= len(data)
        return data

    async def _more(self) -> None:
        self._waiting = Deferred()
        timer = self._clock.callLater(self._stalled_s, self._stall)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if timer.active():
                timer.cancel()

    def _stall(self) -> None:
        self._end(Stalled())
        self.connection.abort()
