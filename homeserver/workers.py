"""Threads that take jobs: the one that fell idle last gets the next, as its caches are warm.

With one queue for all, each job that is done wakes another thread for nothing, and jobs go round
all threads.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
Job = Callable[[], None]


class Stopped(Exception):
    """No more jobs are taken."""


class _Worker:
    __slots__ = ("job", "wake")

    def __init__(self, job: Job | None) -> None:
        self.job = job
        self.wake = threading.Lock()
        self.wake.acquire()


class Workers:
    """At most `size` threads, made when first needed; their names begin with `name`."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self.forget_threads()

    def forget_threads(self) -> None:
        """Begin anew, as in a child of the process: threads stay behind."""
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        self._is_stopped = False

    def submit(self, job: Job) -> None:
        """Run `job`, which must not raise, in a thread.

        Raises Stopped, and RuntimeError if the system allows not even one thread.
        """
        with self._lock:
            if self._is_stopped:
                raise Stopped
            if not self._idle:
                if len(self._threads) == self._size:
                    self._jobs.append(job)
                else:
                    self._start(job)
                return
            worker = self._idle.pop()
            worker.job = job
        worker.wake.release()

    def _start(self, job: Job) -> None:
        name = f"{self._name}-{len(self._threads)}"
        args = (_Worker(job),)
        thread = threading.Thread(target=self._work, args=args, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system's limit on threads: those that there are do it, as long as it is so.
            if not self._threads:
                raise
            self._jobs.append(job)
        else:
            self._threads.append(thread)

    @property
    def is_idle(self) -> bool:
        """Whether every thread waits for a job."""
        with self._lock:
            return len(self._idle) == len(self._threads)

    def _work(self, worker: _Worker) -> None:
        while (job := worker.job) is not None:
            job()
            # Its results must not live until the next job comes.
            del job
            with self._lock:
                worker.job = self._jobs.popleft() if self._jobs else None
                if worker.job is not None:
                    continue
                if self._is_stopped:
                    return
                self._idle.append(worker)
            worker.wake.acquire()

    def stop(self) -> None:
        """End the threads, and wait for it. Jobs already submitted are run first."""
        with self._lock:
            self._is_stopped = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.wake.release()
        for thread in self._threads:
            thread.join()

    def run(self, reactor: Any, fn: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call `fn` in a thread; fires, on the thread of `reactor`, with what comes of it."""
        done: Deferred[T] = Deferred()

        def job() -> None:
            try:
                result = fn(*args)
            except BaseException:
                reactor.callFromThread(done.errback, Failure())  # type: ignore[no-untyped-call]
            else:
                reactor.callFromThread(done.callback, result)

        self.submit(job)
        return done


CORES = len(os.sched_getaffinity(0))
CALCULATING = Workers("calculate", 2 * CORES)
"""For what takes long, asks nobody and lets go of the interpreter, in all servers of the process:
half of them do for those who have much to do, see `federation.client.pdus`."""
os.register_at_fork(after_in_child=CALCULATING.forget_threads)
