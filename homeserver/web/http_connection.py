"""HTTP/1.1 on a Twisted transport, with httptools as the parser.

A connection reads one request, has it handled, writes the answer, and only then looks at what
was pipelined behind it. Its states:

    HEAD     waits for a head, or has a part of one
    BODY     takes the body, into memory or (with the handler running) into a `BodyStream`
    BUSY     the request is complete and being handled; what arrives waits, then reading stops
    DISCARD  the rest of a body that nobody wants is thrown away
    CLOSING  the last bytes are being written

Timeouts are two numbers per connection. The factory looks at a connection when they may have
passed (`homeserver.web.deadlines`).
"""

from __future__ import annotations

import math

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from homeserver.core.errors import MatrixError
from homeserver.web.http_head import BadRequest
from homeserver.web.http_output import render_error, send_response
from homeserver.web.http_owner import Owner, State
from homeserver.web.http_reader import HttpReader
from homeserver.web.prompt import Running, run, until
from homeserver.web.request import ClientDisconnected, Request
from homeserver.web.responses import Response

_NEVER = math.inf
# The members of an enumeration are slow to find.
_HEAD, _BODY, _BUSY, _DISCARD, _CLOSING = State


@implementer(IProtocol, IPushProducer)
class HttpConnection(HttpReader):
    """One connection. Not derived from Twisted's Protocol, so that it has no `__dict__`."""

    __slots__ = ("_drained", "_handling", "_write_deadline", "filed")

    def __init__(self, factory: Owner) -> None:
        super().__init__(factory)
        self._handling: Running | None = None
        self._drained: Deferred[None] | None = None
        self._write_deadline = _NEVER
        self.filed = _NEVER
        """For the factory: when it looks at this connection."""

    # IProtocol

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        transport = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._factory.connections.add(self)
        self._expect_by(self._factory.limits.idle_seconds)

    def dataReceived(self, data: bytes) -> None:
        if self._state >= _DISCARD:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._state is _BUSY:
            self._pause_reading()
        else:
            self._advance()

    def connectionLost(self, reason: Failure) -> None:
        self._is_closed = True
        self._factory.connections.discard(self)
        self._factory.deadlines.remove(self)
        self.read_deadline = self._write_deadline = _NEVER
        self._buffer = b""
        self._head = None
        if self._stream is not None:
            self._stream.fail(ClientDisconnected())
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.errback(ClientDisconnected())
        if self._request is not None:
            self._request.disconnected()
        if self._request is not None and (self._request.is_cancellable or self._head_written):
            self._cancel()

    # IPushProducer: the transport tells whether it can take more

    def pauseProducing(self) -> None:
        self._write_paused = True
        self._write_deadline = deadline = self._factory.now() + self._factory.limits.write_seconds
        if deadline < self.filed:
            self._factory.deadlines.file(self, deadline)

    def resumeProducing(self) -> None:
        self._write_paused = False
        self._write_deadline = _NEVER
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)
        self._advance()

    def stopProducing(self) -> None:
        self._write_paused = True

    # Handling

    def _dispatch(self) -> None:
        request = self._request
        assert request is not None
        self._head_written = False
        self._factory.running += 1
        try:
            result = run(self._factory.application.handle(request), self._handled)
        except BaseException:
            self._served(Failure())  # type: ignore[no-untyped-call]
            return
        if isinstance(result, Running):
            self._handling = result
        else:
            self._handled(result)

    def _handled(self, result: Response | Failure) -> None:
        """The handler has ended: write its answer."""
        request, factory = self._request, self._factory
        if isinstance(result, Failure) or request is None:
            self._served(result if isinstance(result, Failure) else None)
            return
        failure: Failure | None = None
        try:
            rest = send_response(self, request, result, factory.compress, factory.now())
            if rest is not None:
                waiting = run(until(rest), self._served)
                if waiting is not None:
                    self._handling = waiting
                    return
        except BaseException:
            failure = Failure()  # type: ignore[no-untyped-call]
        self._served(failure)

    def _served(self, result: Failure | None) -> None:
        """The answer is written, or cannot be."""
        request = self._request
        try:
            if result is not None and request is not None:
                self._failed(result, request)
        finally:
            self._done()

    def _failed(self, failure: Failure, request: Request) -> None:
        """The handler was cancelled, or writing its answer failed."""
        cancelled = isinstance(failure.value, CancelledError) and request.is_cancelled
        if self._is_closed:
            if not cancelled and not isinstance(failure.value, ClientDisconnected):
                self._factory.log.error("answer failed", path=request.path, exc_info=failure)
            return
        if cancelled and not self._head_written:
            self._keep_alive = False
            error = MatrixError(503, "M_UNKNOWN", "The server is being restarted.")
            error.headers["Retry-After"] = "1"
            self._write_error(error)
            return
        if not cancelled:
            self._factory.log.error("answer failed", path=request.path, exc_info=failure)
        self._keep_alive = False
        self.transport.abortConnection()

    def _done(self) -> None:
        """The answer is written: on to the next request, or the end."""
        self._factory.running -= 1
        self._request = None
        self._handling = None
        self._plan = None
        self._stream = None
        if self._is_closed:
            return
        if self._state is _BODY or self._state is _DISCARD:
            self._linger()
        elif not self._keep_alive or self._factory.is_stopping:
            self._close()
        else:
            self._state = _HEAD
            self._has_begun = False
            self._expect_by(self._factory.limits.idle_seconds)
            if self._buffer or self._reading_paused:
                self._advance()

    def _cancel(self) -> None:
        handling = self._handling
        if self._request is not None and handling is not None:
            self._request.is_cancelled = True
            handling.cancel()

    # What `send_response` asks of a connection

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def begin_response(self) -> bool:
        """The head is about to be written: whether the connection stays open afterwards."""
        self._head_written = True
        if self._state is not _BUSY or self._factory.is_stopping:
            self._keep_alive = False
        return self._keep_alive

    def end_with_close(self) -> None:
        self._keep_alive = False

    async def write(self, data: bytes) -> None:
        """Write, then wait while the client has too much to take."""
        self.transport.write(data)
        if self._write_paused and not self._is_closed:
            self._drained = Deferred()
            await self._drained
        if self._is_closed:
            raise ClientDisconnected

    def write_last(self, data: bytes) -> None:
        """Write the end of a response; what is pipelined behind it waits for the client."""
        if not self._is_closed:
            self.transport.write(data)

    # Ending

    def _refuse(self, error: MatrixError) -> None:
        """Answer what cannot be handled, or tell the running handler of it; then close."""
        self._keep_alive = False
        self._head = None
        self._body = None
        self._buffer = b""
        self.read_deadline = _NEVER
        if self._handling is not None and self._stream is not None:
            self._state = _DISCARD
            self._resume_reading()
            self._stream.fail(error)
            return
        self._request = None
        self._write_error(error)
        self._linger()

    def _write_error(self, error: MatrixError) -> None:
        self._head_written = True
        self.transport.write(render_error(error, self._factory.now()))

    def _linger(self) -> None:
        """Throw away what still comes for a moment: closing at once would reset the connection
        before the client has read its answer."""
        self._state = _DISCARD
        self._buffer = b""
        self._head = None
        self._expect_by(self._factory.limits.linger_seconds)
        self._resume_reading()

    def _close(self) -> None:
        self._state = _CLOSING
        self._buffer = b""
        self._expect_by(self._factory.limits.write_seconds)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    @property
    def is_without_request(self) -> bool:
        """For the factory: whether nothing would be lost by ending this connection."""
        return self._state is _HEAD

    def _expect_by(self, seconds: float) -> None:
        self.read_deadline = deadline = self._factory.now() + seconds
        if deadline < self.filed and not self._is_closed:
            self._factory.deadlines.file(self, deadline)

    @property
    def deadline(self) -> float:
        """When the next timeout passes."""
        return min(self.read_deadline, self._write_deadline)

    def check_time(self, now: float) -> None:
        """For the factory: see whether a timeout has passed."""
        if now >= self._write_deadline:
            self.transport.abortConnection()
        elif now >= self.read_deadline:
            self.read_deadline = _NEVER
            if self._state is _CLOSING:
                self.transport.abortConnection()
            elif self._state is _DISCARD or (self._state is _HEAD and not self._buffer):
                self._close()
            else:
                self._refuse(BadRequest("The request did not arrive in time.", 408))

    def stop(self) -> None:
        """For the factory, again and again: end soon. Waiting long-polls are answered now."""
        self._keep_alive = False
        request = self._request
        if self._state is _HEAD:
            self._close()
        elif (
            request is not None
            and self._handling is not None
            and request.is_cancellable
            and not self._head_written
            and not request.shutting_down()
        ):
            self._cancel()
