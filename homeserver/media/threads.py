"""Threads for work on files, which may wait for a disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class FileThreads:
    """A few threads of their own, so that a slow disk holds up nothing but files."""

    def __init__(self, reactor: Any, size: int = 8) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, size, "media")
        self._started = False
        self._running: set[Deferred[Any]] = set()

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread. Raises what it raises.

        Cancelling does not interrupt it: only its result is dropped.
        """
        result: T = await self.begin(fn, *args, **kwargs)
        return result

    def begin(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """As `run`, without waiting."""
        if not self._started:
            self._started = True
            self._pool.start()
        done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, fn, *args, **kwargs)
        return done

    def stop(self) -> None:
        """Finish what was begun."""
        if self._started:
            self._started = False
            self._pool.stop()
