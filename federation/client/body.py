"""Bodies of requests and of answers."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

HIGH_WATER = 128 * 1024
"""Bytes that wait for their reader from which on the other side is not read from."""


class TooLarge(Exception):
    """The answer is larger than it may be. Its connection was closed."""


@implementer(IBodyProducer)
class BytesBody:
    """A request's body that is in memory already."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        """All was written at once."""

    def pauseProducing(self) -> None:
        """All was written at once."""

    def resumeProducing(self) -> None:
        """All was written at once."""


def read_body(response: Any, max_bytes: int, *, cut: bool = False) -> Deferred[bytes]:
    """The whole body of an answer (`IResponse`); fails with `TooLarge` where the limit is passed.

    With `cut`, the beginning of a body that is longer is enough, and nothing fails. Cancelling
    closes the connection.
    """
    reader = _Reader(max_bytes, UNKNOWN_LENGTH if cut else response.length, cut)
    response.deliverBody(reader)
    return reader.done


class _Reader(Protocol):
    def __init__(self, max_bytes: int, length: Any, cut: bool) -> None:
        self._left = max_bytes
        self._cut = cut
        self._announced = 0 if length is UNKNOWN_LENGTH else int(length)
        self._parts: list[bytes] = []
        self._finished = False
        self.done: Deferred[bytes] = Deferred(lambda _: self._stop())

    def connectionMade(self) -> None:
        if self._announced > self._left:
            self._refuse()

    def dataReceived(self, data: bytes) -> None:
        if self._finished:
            return
        self._left -= len(data)
        if self._left < 0 and self._cut:
            self._parts.append(data[: self._left])
            body = b"".join(self._parts)
            self._stop()
            self.done.callback(body)
        elif self._left < 0:
            self._refuse()
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        if self._finished:
            return
        self._finished = True
        # Without a length the body ends with the connection; JSON shows if it was cut off.
        if reason is None or reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)

    def _refuse(self) -> None:
        self._stop()
        self.done.errback(TooLarge())

    def _stop(self) -> None:
        self._finished = True
        self._parts.clear()
        _abort(self.transport)


def _abort(transport: Any) -> None:
    # The transport of an answer is a proxy that cannot abort, and closing TLS in order would
    # wait for the other side to stop sending.
    connection: Any = getattr(transport, "_producer", None)
    if connection is not None:
        connection.abortConnection()


class Stalled(Exception):
    """Nothing of the answer came for too long. Its connection was closed."""


class BodyReader(Protocol):
    """The body of an answer as it arrives: an async iterator for one reader, with back-pressure.

    Reading raises `TooLarge` beyond `max_bytes`, `Stalled` after `stalled_s` seconds without
    data, and what ended a body that is not whole. `close` ends it early.
    """

    def __init__(self, clock: IReactorTime, max_bytes: int, stalled_s: float) -> None:
        self._clock = clock
        self._left = max_bytes
        self._stalled_s = stalled_s
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._failure: Exception | None = None
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._ended:
            return
        self._left -= len(data)
        if self._left < 0:
            self._end(TooLarge())
            _abort(self.transport)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size >= HIGH_WATER and not self._paused:
            self._paused = True
            producer: Any = self.transport
            producer.pauseProducing()
        self._wake()

    def connectionLost(self, reason: Any = None) -> None:
        # Without a length nobody knows whether a body that ends with its connection is whole.
        whole = reason is None or reason.check(ResponseDone)
        self._end(None if whole else reason.value)

    def _end(self, failure: Exception | None) -> None:
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
            _abort(self.transport)
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
                producer: Any = self.transport
                producer.resumeProducing()
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
        _abort(self.transport)
