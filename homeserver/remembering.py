"""The part of the composition root that bounds what is kept in memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import structlog
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.cache import Caches
from homeserver.parts import Parts
from homeserver.ticking import start_ticking

LOOK_S = 5.0
"""Between two looks at the memory that the process takes."""
SWEEP_S = 60.0
LEAST = 16
"""The caches keep this part of what they may take, whatever the process takes."""
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3

_log = structlog.get_logger(__name__)


def share_memory(parts: Parts) -> None:
    """Have the caches of all services share one bound, see `homeserver.cache`."""
    wanted = parts.config.caches
    caches = Caches(int(wanted.total_bytes))
    # Several protocols may be followed by one service.
    services = {id(service): service for service in parts.services.as_mapping().values()}
    for service in services.values():
        for cache in getattr(service, "caches", ()):
            caches.adopt(cache)
    names = [cache.name for cache in caches]
    assert len(names) == len(set(names)), names
    parts.metrics.caches(caches)
    limit = None if wanted.memory_limit is None else int(wanted.memory_limit)
    watch = MemoryWatch(caches, parts.reactor, limit)
    watch.start()
    parts.stops.append(watch.stop)


def resident() -> int:
    """Bytes of this process in memory (`VmRSS`); 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def steady_allocator() -> None:
    """Have the C library keep less than it would by itself; to be called before the first thread.

    Two arenas in place of eight for each core, so that what one thread frees serves others; and
    large blocks on pages of their own, which go back to the system when they are freed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return  # another C library
    mallopt(_M_ARENA_MAX, 2)
    mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def give_back() -> None:
    """Have the C library give unused memory back to the system, where it knows how to."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass


class MemoryWatch:
    """Takes out of caches what is too old, and makes them smaller when the process is too large.

    Parameters:
        limit: bytes that the process may take; None: as many as it wants.
        measure: tells how many it takes.
    """

    def __init__(
        self,
        caches: Caches,
        clock: IReactorTime,
        limit: int | None,
        measure: Callable[[], int] = resident,
    ) -> None:
        self._caches = caches
        self._all = caches.limit
        self._limit = limit
        self._measure = measure
        self._sweeping = LoopingCall(caches.drop_old)
        self._looking = LoopingCall(self.look)
        for loop in (self._sweeping, self._looking):
            loop.clock = clock

    def start(self) -> None:
        """Begin."""
        self._sweeping.start(SWEEP_S, now=False)
        if self._limit is not None:
            start_ticking(self._looking, LOOK_S)

    def stop(self) -> None:
        """End; the caches stay as they are."""
        for loop in (self._sweeping, self._looking):
            if loop.running:
                loop.stop()

    def look(self) -> None:
        """Compare what the process takes with what it may take."""
        if self._limit is None:
            return
        taken, caches = self._measure(), self._caches
        if taken > self._limit:
            least = self._all // LEAST
            smaller = max(least, min(caches.limit, caches.bytes) - (taken - self._limit))
            if smaller < caches.limit:
                _log.warning("Memory is short: smaller caches", taken=taken, caches=smaller)
                caches.resize(smaller)
                give_back()
        elif taken < self._limit * 0.9 and caches.limit < self._all:
            caches.resize(min(self._all, caches.limit + self._all // LEAST))
