"""Bodies of requests and of answers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer


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
        # The transport of an answer is a proxy that cannot abort, and closing TLS in order would
        # wait for the other side to stop sending.
        connection: Any = getattr(self.transport, "_producer", None)
        if connection is not None:
            connection.abortConnection()
