"""Serving HTTP/1.1 on a listening port: `HttpFactory` is what a port is given."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorThreads, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from homeserver.telemetry.logs import Logger
from homeserver.ticking import start_ticking
from homeserver.web.content_coding import compress, compress_in_thread
from homeserver.web.deadlines import Deadlines
from homeserver.web.http_connection import HttpConnection
from homeserver.web.http_head import HttpLimits, Network
from homeserver.web.http_owner import Application
from homeserver.web.known_heads import KnownHeads

__all__ = ["Application", "HttpFactory", "HttpLimits"]

COMPRESS_IN_THREAD_FROM = 256 * 1024
"""Bytes; less is compressed in a quarter of a millisecond."""

_NEVER = math.inf


class HttpFactory(ServerFactory):
    """Makes the connections of one listener.

    `clock`: the reactor. `threads`: the reactor again, for compressing large answers off the
    main thread; None compresses on it. `trusted_proxies`: whose `X-Forwarded-For` is believed.
    """

    noisy = False

    def __init__(
        self,
        application: Application,
        *,
        clock: IReactorTime,
        log: Logger,
        limits: HttpLimits | None = None,
        trusted_proxies: Sequence[Network] = (),
        threads: IReactorThreads | None = None,
    ) -> None:
        self.application = application
        self.limits = limits or HttpLimits()
        self.trusted_proxies = tuple(trusted_proxies)
        self.log = log
        self.connections: set[HttpConnection] = set()
        self.deadlines = Deadlines()
        self.heads = KnownHeads(self.limits)
        self.running = 0
        """Requests being handled."""
        self.is_stopping = False
        self.now = clock.seconds
        """The time in seconds."""
        self._threads = threads
        self._sweep = LoopingCall(self._check_times)
        self._sweep.clock = clock
        self._stopped: list[Deferred[None]] = []
        self._stop_by = _NEVER

    def startFactory(self) -> None:
        if not self._sweep.running:
            start_ticking(self._sweep, 1.0)

    def buildProtocol(self, addr: IAddress | None) -> HttpConnection | None:  # type: ignore[override]
        if self.is_stopping or not self._has_room():
            return None
        return HttpConnection(self)

    def _has_room(self) -> bool:
        """Whether one more connection can be taken; those without a request make room."""
        bound = self.limits.max_connections
        if len(self.connections) < bound:
            return True
        idle = sorted(
            (each for each in self.connections if each.is_without_request),
            key=lambda each: each.read_deadline,
        )
        # Some at once, so that they are not sorted for each new one.
        for connection in idle[: max(1, bound // 10)]:
            connection.stop()
        return bool(idle)

    def compress(self, coding: str, data: bytes) -> bytes | Awaitable[bytes]:
        """Compress a body; a large one in a thread."""
        if self._threads is None or len(data) < COMPRESS_IN_THREAD_FROM:
            return compress(coding, data)
        pool = self._threads.getThreadPool()
        return deferToThreadPool(self._threads, pool, compress_in_thread, coding, data)

    def stop(self, seconds: float = 30.0) -> Deferred[None]:
        """End all connections: idle ones and long-polls now, others when their answer is written.

        Fires when none is left, at the latest after `seconds`, when the rest is cut off. The
        listening port must be closed before.
        """
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        if not self.is_stopping:
            self.is_stopping = True
            self._stop_by = self.now() + seconds
            if self._sweep.running:
                self._sweep.stop()
            self._sweep.start(0.1, now=True)
        return stopped

    def _check_times(self) -> None:
        now = self.now()
        self.deadlines.check(now)
        if not self.is_stopping:
            return
        for connection in list(self.connections):
            connection.stop()
            if now >= self._stop_by:
                connection.transport.abortConnection()
        if now >= self._stop_by or not (self.connections or self.running):
            self._sweep.stop()
            stopped, self._stopped = self._stopped, []
            for deferred in stopped:
                deferred.callback(None)
