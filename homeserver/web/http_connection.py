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
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from homeserver.core.errors import MatrixError, too_large
from homeserver.web.http_body import BodyStream
from homeserver.web.http_head import BadRequest, Head, client_address, without_blank_lines
from homeserver.web.http_output import CONTINUE, render_error, send_response
from homeserver.web.http_owner import Owner, State
from homeserver.web.prompt import Running, run, until
from homeserver.web.request import BodyPlan, ClientDisconnected, Request
from homeserver.web.responses import Response

_NEVER = math.inf
# The members of an enumeration are slow to find.
_HEAD, _BODY, _BUSY, _DISCARD, _CLOSING = State


@implementer(IProtocol, IPushProducer)
class HttpConnection:
    """One connection. Not derived from Twisted's Protocol, so that it has no `__dict__`."""

    __slots__ = (
        "_advancing",
        "_body",
        "_buffer",
        "_drained",
        "_factory",
        "_handling",
        "_has_begun",
        "_head",
        "_head_written",
        "_is_closed",
        "_keep_alive",
        "_peer",
        "_plan",
        "_reading_paused",
        "_remaining",
        "_request",
        "_state",
        "_stream",
        "_write_deadline",
        "_write_paused",
        "filed",
        "is_http10",
        "read_deadline",
        "transport",
    )

    transport: Any

    def __init__(self, factory: Owner) -> None:
        self._factory = factory
        self._state = _HEAD
        self._buffer = b""
        self._head: Head | None = None
        self._body: bytearray | None = None
        self._plan: BodyPlan | None = None
        self._remaining = 0
        self._request: Request | None = None
        self._stream: BodyStream | None = None
        self._handling: Running | None = None
        self._drained: Deferred[None] | None = None
        self._advancing = False
        self._has_begun = False
        """Whether anything of the next request has come."""
        self._head_written = False
        self._is_closed = False
        self._keep_alive = True
        self._peer: str | None = None
        self.is_http10 = False
        self._reading_paused = False
        self._write_paused = False
        self.read_deadline = _NEVER
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

    # Reading

    def _expect_by(self, seconds: float) -> None:
        self.read_deadline = deadline = self._factory.now() + seconds
        if deadline < self.filed and not self._is_closed:
            self._factory.deadlines.file(self, deadline)

    def _wait_for_head(self) -> None:
        """A part of a head is there: the rest has to come soon."""
        if self._buffer and not self._has_begun:
            self._has_begun = True  # blank lines, too, are waited for only so long
            self._expect_by(self._factory.limits.header_seconds)

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._is_closed:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._is_closed:
            self._reading_paused = False
            self.transport.resumeProducing()

    def _advance(self) -> None:
        """Do what the received data allows."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._step():
                pass
        except MatrixError as error:
            self._refuse(error)
        finally:
            self._advancing = False

    def _step(self) -> bool:
        """Whether there may be more to do."""
        if self._is_closed:
            return False
        if self._state is _HEAD:
            return self._step_head()
        if self._state is _BODY:
            return self._step_body()
        return False

    def _step_head(self) -> bool:
        if self._write_paused:  # the client does not take its answers: no further request
            self._wait_for_head()
            self._pause_reading()
            return False
        limits = self._factory.limits
        if self._buffer.startswith((b"\r", b"\n")):
            self._wait_for_head()
            self._buffer = without_blank_lines(self._buffer)
        data = self._buffer
        end = data.find(b"\r\n\r\n") + 4
        if (end if end > 3 else len(data)) > limits.max_head_bytes:
            raise BadRequest("The head is too large.", 431)
        if end <= 3:
            if b"\n\n" in data:
                raise BadRequest("Lines must end with CR LF.")
            self._wait_for_head()
            self._resume_reading()
            return False
        self._buffer = data[end:]
        self._begin(data[:end])
        return True

    def _begin(self, data: bytes) -> None:
        """Read a head, and decide how to take the body."""
        factory = self._factory
        self._keep_alive = False  # as long as the head may turn out bad
        head, request = factory.heads.read(data)
        if self._peer is None:
            self._peer = getattr(self.transport.getPeer(), "host", "")
        request.remote_address = self._peer
        if factory.trusted_proxies:
            forwarded_for = request.headers.get(b"x-forwarded-for")
            request.remote_address = client_address(
                self._peer, forwarded_for, factory.trusted_proxies
            )
        plan = factory.application.body_plan(request)
        if head.content_length > plan.max_bytes:
            raise too_large()
        self._keep_alive = head.keep_alive and not factory.is_stopping
        self.is_http10 = head.is_http10
        self._head = head
        self._plan = plan
        self._remaining = head.content_length
        self._request = request
        if plan.stream:
            self._stream = BodyStream(self._stream_wanted)
            request.body_stream = self._stream
        if not head.is_chunked and not head.content_length:
            self._end_body()
            if self._stream is not None:
                self._stream.end()
            self._dispatch()
            return
        self._state = _BODY
        if self._stream is not None:
            self._expect_by(factory.limits.stream_seconds)
            self._dispatch()
        else:
            self._expect_by(factory.limits.body_seconds)
            self._body = bytearray()
            if not self._buffer:
                self._continue()

    def _continue(self) -> None:
        """Tell a client that waits for it to send the body."""
        head = self._head
        if head is not None and head.expects_continue:
            head.expects_continue = False
            if not self._head_written and not self._is_closed:
                self.transport.write(CONTINUE)

    def _step_body(self) -> bool:
        head, plan = self._head, self._plan
        assert head is not None and plan is not None
        if self._stream is not None and self._stream.is_full:
            self.read_deadline = _NEVER  # this is our slowness, not the client's
            self._pause_reading()
            return False
        if not self._buffer:
            self._resume_reading()
            return False
        if head.is_chunked:
            data, self._buffer = self._buffer, b""
            complete = head.feed_chunks(data)
            data, head.body = bytes(head.body), bytearray()
            self._remaining += len(data)
            if self._remaining > plan.max_bytes:
                raise too_large()
            if head.surplus:  # nobody needs pipelining behind chunks; smugglers do
                self._keep_alive = False
        else:
            data = self._buffer[: self._remaining]
            self._buffer = self._buffer[self._remaining :]
            self._remaining -= len(data)
            complete = not self._remaining
        received = self._body
        if complete:
            self._end_body()
        if self._stream is not None:
            if not complete:
                self._expect_by(self._factory.limits.stream_seconds)
            if data:
                self._stream.feed(data)
            if complete and self._stream is not None:
                self._stream.end()
            return True
        assert received is not None and self._request is not None
        if complete:
            # The usual case, a body in one piece, is not copied.
            self._request.body = bytes(received + data) if received else data
            self._dispatch()
        else:
            received += data
        return True

    def _stream_wanted(self) -> None:
        """The handler waits for more of the body."""
        self._continue()
        if self._state is _BODY and self._reading_paused:
            self._expect_by(self._factory.limits.stream_seconds)
            self._resume_reading()
            self._advance()

    def _end_body(self) -> None:
        self.read_deadline = _NEVER
        self._head = None
        self._body = None
        self._state = _BUSY
        if self._buffer:
            self._pause_reading()

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
