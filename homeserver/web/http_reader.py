"""What has come on an HTTP/1.1 connection: heads and bodies of requests, one after the other."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from homeserver.core.errors import MatrixError, too_large
from homeserver.web.http_body import BodyStream
from homeserver.web.http_head import BadRequest, Head, client_address, without_blank_lines
from homeserver.web.http_output import CONTINUE
from homeserver.web.http_owner import Owner, State
from homeserver.web.request import BodyPlan, Request

_NEVER = math.inf
# The members of an enumeration are slow to find.
_HEAD, _BODY, _BUSY, _DISCARD, _CLOSING = State


class HttpReader(ABC):
    """The reading half of a connection: bytes to requests. What handles them is derived from it,
    for a second object to each connection would cost memory that there are thousands of."""

    __slots__ = (
        "_advancing",
        "_body",
        "_buffer",
        "_factory",
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
        "_write_paused",
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

    @abstractmethod
    def _expect_by(self, seconds: float) -> None:
        """More has to have come in so many seconds."""

    @abstractmethod
    def _dispatch(self) -> None:
        """Have the request handled: its head is read, and its body, unless it is streamed."""

    @abstractmethod
    def _refuse(self, error: MatrixError) -> None:
        """Answer what cannot be handled."""

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
