"""The client's side of an HTTP/1.1 connection, with httptools as the parser of heads and chunks.

One request at a time; nothing is pipelined. Its states:

    NEW       connected, and nothing asked
    HEAD      a request was written; waits for the head of the answer, or has a part of one
    FIXED     takes a body of a known length
    CHUNKED   takes a body in chunks
    OPEN_END  takes a body that ends with the connection
    SETTLING  the answer is whole; whatever else came with it is about to be seen
    IDLE      may be asked again; nothing may come
    ENDED     closed, or being closed: nothing that comes counts

A connection that brings anything that is not the answer to its request is not used again. An answer
is given, and its connection for the next request, only in the next turn of the event loop: TLS
delivers what came in one piece in several, and the second must not be taken for the next answer.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from federation.client.answer_head import (
    MAX_HEAD_BYTES,
    MAX_INFORMATIONAL,
    AnswerHead,
    NotHttp,
    head_end,
)
from federation.client.body import TooLarge

_NEW, _HEAD, _FIXED, _CHUNKED, _OPEN_END, _SETTLING, _IDLE, _ENDED = range(8)
_START = b"HTTP/1."
_LARGE_REQUEST = 64 * 1024
"""Bytes from which on a request may not have gone out whole when it is refused."""


class ConnectionEnded(Exception):
    """The connection ended before the answer did, because of `reason`.

    `is_unanswered`: nothing at all of an answer had come.
    """

    def __init__(self, reason: BaseException, *, is_unanswered: bool) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.is_unanswered = is_unanswered


class Receiver(Protocol):
    """What takes an answer: `federation.client.body` has them."""

    connection: Connection

    def begin(self, head: AnswerHead) -> None: ...
    def take(self, data: bytes) -> None: ...
    def end(self, *, is_sure: bool = True) -> None: ...
    def fail(self, error: BaseException) -> None: ...


class Owner(Protocol):
    """Who has connections: the pool."""

    def settle(self, connection: Connection) -> None:
        """Call `settled` of the connection in the next turn of the event loop."""

    def keep(self, connection: Connection) -> None:
        """The connection may be asked again, or be closed."""

    def closing(self, connection: Connection) -> None:
        """The connection is being closed in order, for which the other side is needed."""

    def lost(self, connection: Connection) -> None:
        """The connection has ended."""


@implementer(IProtocol)
class Connection:
    """One connection. `key` tells what for; with `lenient` see `AnswerHead.read`."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_head",
        "_informational",
        "_is_large",
        "_is_paused",
        "_left",
        "_lenient",
        "_method",
        "_owner",
        "_receiver",
        "_reusable",
        "_searched",
        "_state",
        "key",
        "transport",
        "until",
    )

    transport: Any
    until: float
    """When its owner keeps it no more."""

    def __init__(self, owner: Owner, key: object, *, lenient: bool) -> None:
        self.key = key
        self._owner = owner
        self._lenient = lenient
        self._state = _NEW
        self._method = ""
        self._buffer = b""
        self._searched = 0
        self._informational = 0
        self._head: AnswerHead | None = None
        self._left = 0
        self._receiver: Receiver | None = None
        self._reusable = False
        self._is_large = False
        self._is_paused = False

    # IProtocol

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        try:
            if state == _HEAD:
                self._take_head(data)
            elif state in (_FIXED, _CHUNKED, _OPEN_END):
                self._take_body(data)
            elif state == _SETTLING:
                self._reusable = False
            elif state != _ENDED:  # unasked
                self.abort()
        except (NotHttp, TooLarge) as error:
            receiver = self._receiver
            self.abort()
            if receiver is not None:
                receiver.fail(error)

    def connectionLost(self, reason: Failure) -> None:
        state, self._state = self._state, _ENDED
        if state != _SETTLING:
            receiver, self._receiver = self._receiver, None
            if receiver is not None and state == _OPEN_END:
                receiver.end(is_sure=False)
            elif receiver is not None:
                unanswered = state == _HEAD and not self._buffer and not self._informational
                error = reason.value or ConnectionLost()
                receiver.fail(ConnectionEnded(error, is_unanswered=unanswered))
        self._buffer = b""
        self._head = None
        self._owner.lost(self)

    # What the pool and the readers call

    @property
    def is_idle(self) -> bool:
        """Whether it can be asked again. That the other side ended TLS is told when TCP has ended
        too: meanwhile whatever is written is lost."""
        lower = getattr(self.transport, "transport", self.transport)
        return self._state == _IDLE and not lower.disconnecting

    def ask(self, method: str, request: bytes, receiver: Receiver) -> None:
        """Write a request, and give `receiver` its answer."""
        receiver.connection = self
        if self._state not in (_NEW, _IDLE):
            receiver.fail(ConnectionEnded(ConnectionLost(), is_unanswered=True))
            return
        self._state = _HEAD
        self._method = method
        self._informational = 0
        self._is_large = len(request) > _LARGE_REQUEST
        self._receiver = receiver
        self.transport.write(request)

    def settled(self) -> None:
        """Nothing more came with the answer."""
        receiver, self._receiver = self._receiver, None
        if self._state == _SETTLING:
            if self._reusable:
                self._state = _IDLE
                self._owner.keep(self)
            else:
                self.close()
        if receiver is not None:
            receiver.end()

    def pause(self) -> None:
        """Read no more for now."""
        if not self._is_paused and self._state != _ENDED:
            self._is_paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and self._state != _ENDED:
            self._is_paused = False
            self.transport.resumeProducing()

    def close(self) -> None:
        """End it in order: TLS wants to hear from the other side, too."""
        if self._state != _ENDED:
            self._end()
            self._owner.closing(self)
            self.transport.loseConnection()

    def abort(self) -> None:
        """End it at once. Its receiver hears nothing more."""
        if self._state != _ENDED:
            self._end()
            self.transport.abortConnection()

    def leave(self) -> None:
        """Its receiver wants no more: where the answer is not whole yet, that ends it."""
        if self._state == _SETTLING:
            self._receiver = None
        else:
            self.abort()

    def cut(self) -> None:
        """End it at once though it is being closed."""
        self.transport.abortConnection()

    def _end(self) -> None:
        self._state = _ENDED
        self._receiver = None
        self._buffer = b""
        self._head = None

    # Reading

    def _take_head(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        while True:
            if data[:7] != _START[: len(data)]:
                raise NotHttp("it begins otherwise")
            end = head_end(data, self._searched, lenient=self._lenient)
            if (end or len(data)) > MAX_HEAD_BYTES:
                raise NotHttp("its head is too large")
            if not end:
                self._buffer = data
                self._searched = len(data)
                return
            self._searched = 0
            head = AnswerHead()
            head.read(data[:end], self._method, lenient=self._lenient)
            data = data[end:]
            if head.status >= 200:
                break
            # Informational answers are read over; the answer is yet to come.
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise NotHttp("too many informational answers")
            if not data:
                self._buffer = b""
                return
        self._buffer = b""
        self._begin(head, data)

    def _begin(self, head: AnswerHead, data: bytes) -> None:
        assert self._receiver is not None
        # Who refuses a large request may not read it to its end: the next would wait behind it.
        self._reusable = head.keep_alive and not (self._is_large and not 200 <= head.status < 300)
        self._left = head.length or 0
        if head.is_chunked:
            self._state = _CHUNKED
            self._head = head
        else:
            self._state = _OPEN_END if head.length is None else _FIXED
            self._reusable &= head.length is not None
        self._receiver.begin(head)
        if data or head.length == 0:
            self._take_body(data)

    def _take_body(self, data: bytes) -> None:
        complete = False
        if self._state == _FIXED:
            if len(data) > self._left:
                self._reusable = False
                data = data[: self._left]
            self._left -= len(data)
            complete = not self._left
        elif self._state == _CHUNKED:
            assert self._head is not None
            data = self._head.feed_chunks(data)
            complete = self._head.ended
            if self._head.surplus:
                self._reusable = False
        if data and self._receiver is not None:
            self._receiver.take(data)
        if complete and self._state != _ENDED:
            self.resume()
            self._head = None
            self._state = _SETTLING
            self._owner.settle(self)
