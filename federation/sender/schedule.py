"""When transactions are sent: at once, a few at a time, or later.

Destinations that cannot be reached are in one heap with one timer, whatever their number.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall

from federation.sender.destination import Destination
from homeserver.semaphore import Semaphore

MAX_HEALTHY = 500
"""Transactions under way at a time."""
MAX_RECOVERING = 20
"""The same, to destinations that did not take the last one."""
SLICE_S = 0.01
"""Time given to starting transactions before other work has its turn."""

_log = structlog.get_logger(__name__)


class Schedule:
    """Runs `send_next` for destinations, one at a time for each.

    `changed(destination)` is called whenever an attempt ended.
    """

    def __init__(
        self,
        clock: Any,
        send_next: Callable[[Destination], Awaitable[bool]],
        changed: Callable[[Destination], object],
    ) -> None:
        self._clock = clock
        self._send_next = send_next
        self._changed = changed
        self._ready: dict[Destination, None] = {}
        self._pump_call: IDelayedCall | None = None
        self._heap: list[tuple[int, int, Destination]] = []
        self._numbers = itertools.count()
        self._timer: IDelayedCall | None = None
        self._running: dict[Destination, Deferred[None]] = {}
        self._healthy = Semaphore(MAX_HEALTHY)
        self._recovering = Semaphore(MAX_RECOVERING)
        self._sending: set[Destination] = set()
        self._stopped = False

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    @property
    def under_way(self) -> int:
        """Destinations that are being served."""
        return len(self._running)

    def wake(self, destination: Destination) -> None:
        """There is something to send: do it as soon as the destination's back-off allows."""
        if destination.running or self._stopped or destination.gone:
            return
        if destination.failing_since is not None and destination.retry_at > self._now():
            return  # it is in the heap
        self._ready[destination] = None
        if self._pump_call is None:
            self._pump_call = self._clock.callLater(0, self._pump)

    def heard_from(self, destination: Destination) -> None:
        """The destination is there: try soon, and forget how often it was not."""
        if not destination.running and destination.heard_from(self._now()):
            self.later(destination)

    def retry(self, destination: Destination) -> None:
        """Try now, whatever came before."""
        if not destination.running:
            destination.retry(self._now())
            self.later(destination)

    def later(self, destination: Destination) -> None:
        """Try again at the destination's `retry_at`."""
        if self._stopped or destination.gone:
            return
        heapq.heappush(self._heap, (destination.retry_at, next(self._numbers), destination))
        self._set_timer()

    def forget(self, destination: Destination) -> None:
        """This process no longer serves it; a transaction under way is broken off."""
        destination.gone = True
        self._ready.pop(destination, None)
        running = self._running.get(destination)
        if running is not None:
            running.cancel()

    async def stop(self) -> None:
        """Break off what is under way."""
        self._stopped = True
        self._ready.clear()
        for call in (self._pump_call, self._timer):
            if call is not None and call.active():
                call.cancel()
        under_way = dict(self._running)
        # Those that wait for their turn first: the end of one that has it would give the turn to
        # the next, whose end gives it on, thousands deep in one another.
        for destination in [each for each in under_way if each not in self._sending]:
            under_way.pop(destination).cancel()
        for running in under_way.values():
            running.cancel()
        for running in list(self._running.values()):
            await running

    def _set_timer(self) -> None:
        if not self._heap:
            return
        due = self._heap[0][0] / 1000
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= due:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(max(due - self._clock.seconds(), 0), self._due)

    def _due(self) -> None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            retry_at, _, destination = heapq.heappop(self._heap)
            if destination.retry_at == retry_at and destination.has_work:
                self.wake(destination)
        self._set_timer()

    def _pump(self) -> None:
        self._pump_call = None
        end = self._clock.seconds() + SLICE_S
        while self._ready:
            destination = next(iter(self._ready))
            del self._ready[destination]
            self._start(destination)
            if self._clock.seconds() > end:
                break
        if self._ready:
            self._pump_call = self._clock.callLater(0, self._pump)

    def _start(self, destination: Destination) -> None:
        if destination.running or destination.gone:
            return
        destination.running = True
        running = Deferred.fromCoroutine(self._run(destination))
        if not running.called:
            self._running[destination] = running

    async def _run(self, destination: Destination) -> None:
        limit = self._healthy if destination.failing_since is None else self._recovering
        try:
            await limit.acquire()
            self._sending.add(destination)
            try:
                while not self._stopped and await self._send_next(destination):
                    self._changed(destination)
            finally:
                self._sending.discard(destination)
                limit.release()
        except CancelledError:
            pass
        except Exception:
            _log.exception("Sending failed", destination=destination.name)
        finally:
            destination.running = False
            self._running.pop(destination, None)
        if self._stopped or destination.gone:
            return
        self._changed(destination)
        if destination.failing_since is not None:
            self.later(destination)
        elif destination.has_work:
            self.wake(destination)
