"""Transactions in threads: from the reactor thread to a thread with a connection, and back.

`Threads` runs one attempt of a transaction; what is done about failures, and what follows from a
commit, is for `storage.database`.
"""

from __future__ import annotations

import contextvars
import random
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred

from storage import invalidations
from storage.errors import CommitUnknown, ConnectionLost
from storage.pool import Backend, Pool, Reactor, Session
from storage.transaction import Transaction

T = TypeVar("T")


class Timing(NamedTuple):
    """How one transaction went: the function, its kind (see `Threads.submit`), seconds,
    statements."""

    name: str
    kind: str
    waited: float
    took: float
    statements: int
    failed: bool


def backoff(attempt: int, first: float, limit: float) -> float:
    """Seconds to wait before the next attempt, the first of which is number 1."""
    return min(limit, first * 2.0 ** min(attempt - 1, 30)) * random.uniform(0.5, 1.0)


def sleep(reactor: Reactor, seconds: float) -> Deferred[None]:
    """Fires after `seconds`."""
    call: Any = None
    waiting: Deferred[None] = Deferred(lambda _: call.cancel())
    call = reactor.callLater(seconds, waiting.callback, None)
    return waiting


class _Job:
    """One attempt of one transaction, from the reactor thread to a pool thread and back."""

    __slots__ = ("args", "cancelled", "context", "done", "fn", "kind", "kwargs", "queued")

    def __init__(
        self, kind: str, fn: Callable[..., Any], args: Any, kwargs: Any, queued: float
    ) -> None:
        self.kind = kind
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.queued = queued
        self.cancelled = False
        self.context = contextvars.copy_context()
        self.done: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled = True  # a job still in the queue is not run

    def forget(self) -> None:
        """Let go of what it was given, which may be much: who waits may do much else next."""
        self.args, self.kwargs = (), {}


class Threads:
    """The threads of a database. Used on the reactor thread.

    Parameters: `take_effect` is called on the reactor thread for each committed transaction,
    before its caller goes on; `report` there too, after each transaction.
    """

    def __init__(
        self,
        backend: Backend,
        reactor: Reactor,
        take_effect: Callable[[Transaction], None],
        report: Callable[[Timing], None],
    ) -> None:
        self._backend = backend
        self._reactor = reactor
        self._take_effect = take_effect
        self._report = report
        self._readers = Pool("read", backend.readers, lambda: backend.connect(writable=False))
        self._writers = Pool("write", backend.writers, lambda: backend.connect(writable=True))
        self._running = 0
        self._quiet: list[Deferred[None]] = []

    def submit(self, kind: str, fn: Callable[..., Any], args: Any, kwargs: Any) -> Deferred[Any]:
        """Run `fn(txn, …)` once in a transaction; fires with its result.

        `kind`: "read", "write", or "single" for a function that writes by one statement.

        A job that is cancelled while it waits is not run. Raises DatabaseClosed.
        """
        job = _Job(kind, fn, args, kwargs, self._reactor.seconds())
        pool, run = (
            (self._readers, self._run_read) if kind == "read" else (self._writers, self._run_write)
        )
        pool.submit(lambda: run(job))
        self.one_more()
        return job.done

    async def on_session(self, fn: Callable[..., T], *args: Any, pool: Pool | None = None) -> T:
        """Run `fn(session, …)` outside a transaction, in a thread of `pool` or that reads."""
        pool = pool or self._readers
        done: Deferred[T] = Deferred(lambda _: None)

        def work() -> None:
            session = None
            try:
                session = pool.take()
                result = fn(session, *args)
            except BaseException as error:
                self._back(finish, done.errback, error)
            else:
                self._back(finish, done.callback, result)
            self._end(pool, session)

        def finish(fire: Callable[[Any], None], value: Any) -> None:
            fire(value)
            self.one_less()

        pool.submit(work)
        self.one_more()
        return await done

    # In a thread of a pool

    def _run_read(self, job: _Job) -> None:
        began = self._reactor.seconds()
        session: Session | None = None
        txn: Transaction | None = None
        try:
            if job.cancelled:
                self._back(self._finished, job, None, None, None)
                return
            session = self._readers.take()
            txn = session.begin()
            result = job.context.run(job.fn, txn, *job.args, **job.kwargs)
        except BaseException as error:
            self._end(self._readers, session)
            timing = self._timing(job, began, txn, failed=True)
            self._back(self._finished, job, None, self._cause(session, error), timing)
        else:
            # The answer need not wait for the end of a transaction that changed nothing.
            timing = self._timing(job, began, txn, failed=False)
            self._back(self._finished, job, result, None, timing)
            self._end(self._readers, session)

    def _run_write(self, job: _Job) -> None:
        began = self._reactor.seconds()
        session: Session | None = None
        txn: Transaction | None = None
        try:
            if job.cancelled:
                self._back(self._finished, job, None, None, None)
                return
            session = self._writers.take()
            txn = session.begin_single() if job.kind == "single" else session.begin()
            result = job.context.run(job.fn, txn, *job.args, **job.kwargs)
            if txn.invalidations:
                pos = txn.last_pos or txn.next_pos()
                invalidations.add(txn, pos, txn.invalidations, int(began * 1000))
            session.commit()
        except BaseException as error:
            self._end(self._writers, session)
            timing = self._timing(job, began, txn, failed=True)
            self._back(self._finished, job, None, self._cause(session, error), timing)
        else:
            self._writers.give_back(session)
            timing = self._timing(job, began, txn, failed=False)
            self._back(self._committed, job, txn, result, timing)

    @staticmethod
    def _cause(session: Session | None, error: BaseException) -> BaseException:
        """The error to tell: whatever a function made of a broken connection is that."""
        if session is None or not session.broken or isinstance(error, CommitUnknown):
            return error
        lost = ConnectionLost(f"The connection to the database was lost: {error}")
        lost.__cause__ = error
        return lost

    @staticmethod
    def _end(pool: Pool, session: Session | None) -> None:
        if session is not None:
            session.rollback()
            pool.give_back(session)

    def _back(self, fn: Callable[..., Any], *args: Any) -> None:
        self._reactor.callFromThread(fn, *args)

    def _timing(self, job: _Job, began: float, txn: Transaction | None, *, failed: bool) -> Timing:
        name = getattr(job.fn, "__qualname__", type(job.fn).__name__)
        took = self._reactor.seconds() - began
        statements = 0 if txn is None else txn.statements
        return Timing(name, job.kind, began - job.queued, took, statements, failed)

    # Back on the reactor thread: once for each job, as each time wakes it

    def _finished(
        self, job: _Job, result: Any, error: BaseException | None, timing: Timing | None
    ) -> None:
        job.forget()
        if not job.done.called:  # else cancelled
            if error is None:
                job.done.callback(result)
            else:
                job.done.errback(error)
        self.one_less()
        if timing is not None:
            self._report(timing)

    def _committed(self, job: _Job, txn: Transaction, result: Any, timing: Timing) -> None:
        try:
            job.context.run(self._take_effect, txn)
        finally:
            job.forget()
            if not job.done.called:
                job.done.callback(result)
            self.one_less()
            self._report(timing)

    # The end

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, and all that ran was reported."""
        return not self._running and self._readers.is_idle and self._writers.is_idle

    def one_more(self) -> None:
        """Something runs for which `stop` is to wait, until `one_less`."""
        self._running += 1

    def one_less(self) -> None:
        """See `one_more`."""
        self._running -= 1
        if self._running == 0:
            quiet, self._quiet = self._quiet, []
            for waiter in quiet:
                waiter.callback(None)

    async def quiet(self) -> None:
        """Returns when nothing runs."""
        while self._running:
            waiter: Deferred[None] = Deferred()
            self._quiet.append(waiter)
            await waiter

    async def stop(self) -> None:
        """End threads and connections; what the threads sent at the very end arrives first."""
        self._readers.stop()
        self._writers.stop()
        turn: Deferred[None] = Deferred()
        self._reactor.callFromThread(turn.callback, None)
        await turn
