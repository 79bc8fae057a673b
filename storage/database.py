"""The door to the database: coroutines run plain functions in transactions, in threads.

`read` gives a function a consistent snapshot; `write` runs it in one transaction, again when the
database asks for it, and carries out what it registered (`Transaction.invalidate`, `after_commit`,
`notify`) once it is committed. Cancelling the caller never interrupts a running transaction: its
effects happen, only its result is dropped.
"""

from __future__ import annotations

import contextvars
import random
import secrets
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from twisted.internet.defer import Deferred, ensureDeferred

from storage import clock, invalidations, migrate
from storage.bus import Bus
from storage.dialect import Dialect
from storage.errors import (
    CommitUnknown,
    Conflict,
    ConnectionLost,
    DatabaseUnavailable,
    UnusableDatabase,
)
from storage.pool import Backend, Pool, Reactor, Session
from storage.positions import Positions
from storage.sqlite import SqliteBackend
from storage.transaction import Transaction

P = ParamSpec("P")
T = TypeVar("T")

CONFLICT_ATTEMPTS = 30
GIVE_UP_AFTER = 30.0
"""Seconds that a caller waits for a database that is away."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How one transaction went: the function, "read" or "write", seconds, statements."""

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


class Database:
    """An open database. Made by `open_database`; used on the reactor thread."""

    def __init__(
        self,
        backend: Backend,
        reactor: Reactor,
        bus: Bus | None,
        position: int,
        observe: Callable[[Timing], None] | None = None,
    ) -> None:
        self.dialect: Dialect = backend.dialect
        self.process_token = secrets.token_hex(6)
        self.positions = Positions(position)
        self._backend = backend
        self._reactor = reactor
        self._bus = bus
        self._observe = observe
        self._readers = Pool("read", backend.readers, lambda: backend.connect(writable=False))
        self._writers = Pool("write", backend.writers, lambda: backend.connect(writable=True))
        self._caches: dict[str, list[tuple[Callable[[str], None], Callable[[], None] | None]]] = (
            defaultdict(list)
        )
        self._commit_listeners: list[Callable[[tuple[str, ...], int], None]] = []
        self._look_waiters: list[Deferred[int]] = []
        self._looking = False
        self._running = 0
        self._closing = False
        self._is_away = False
        self._quiet: list[Deferred[None]] = []

    # Transactions

    async def read(
        self, fn: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `fn(txn, …)` on a consistent snapshot.

        Raises what `fn` raises, and DatabaseUnavailable when the database stays away.
        """
        result: T = await self._retried("read", fn, args, kwargs)
        return result

    async def write(
        self, fn: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `fn(txn, …)` in one transaction, committed when `fn` returns.

        `fn` runs again, on a new transaction, after a serialisation failure or a deadlock and
        when the connection was lost without a commit. Raises what `fn` raises (nothing is
        committed then), DatabaseUnavailable when the database stays away, and CommitUnknown when
        the connection broke during COMMIT and the database cannot say how it ended.
        """
        result: T = await self._retried("write", fn, args, kwargs)
        return result

    async def _retried(self, kind: str, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        started = self._reactor.seconds()
        attempt = 0
        while True:
            attempt += 1
            try:
                result = await self._submit(kind, fn, args, kwargs)
                if self._is_away:
                    self._is_away = False
                    _log.info("The database is back")
                return result
            except Conflict:
                if attempt >= CONFLICT_ATTEMPTS:
                    raise
                delay = backoff(attempt, 0.002, 0.25)
            except (ConnectionLost, DatabaseUnavailable) as error:
                waited = self._reactor.seconds() - started
                if waited >= GIVE_UP_AFTER or self._closing:
                    raise DatabaseUnavailable(
                        f"The database was away for {waited:.0f} seconds: {error}"
                    ) from error
                # The first failure is often a connection that an earlier restart had closed.
                if attempt > 1 and not self._is_away:
                    self._is_away = True
                    _log.warning("The database is away; requests wait for it", reason=str(error))
                delay = 0.0 if attempt == 1 else backoff(attempt - 1, 0.05, 2.0)
            except CommitUnknown as error:
                if await self._was_committed(error, started) is not False:
                    raise
                delay = 0.0
            if delay:
                await sleep(self._reactor, delay)

    async def _was_committed(self, error: CommitUnknown, started: float) -> bool | None:
        """Ask a database that is back whether a transaction got through; None: not known."""
        if error.transaction_id is None:
            return None
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._on_session(
                    self._readers, self._backend.committed, error.transaction_id
                )
            except (ConnectionLost, DatabaseUnavailable, Conflict):
                if self._reactor.seconds() - started >= GIVE_UP_AFTER or self._closing:
                    return None
            await sleep(self._reactor, backoff(attempt, 0.05, 2.0))

    def _submit(self, kind: str, fn: Callable[..., Any], args: Any, kwargs: Any) -> Deferred[Any]:
        job = _Job(kind, fn, args, kwargs, self._reactor.seconds())
        pool, run = (
            (self._readers, self._run_read) if kind == "read" else (self._writers, self._run_write)
        )
        pool.submit(lambda: run(job))
        self._running += 1
        return job.done

    # In a thread of a pool

    def _run_read(self, job: _Job) -> None:
        began = self._reactor.seconds()
        session: Session | None = None
        txn: Transaction | None = None
        failed = True
        try:
            if job.cancelled:
                self._back(self._finished, job, None, None)
                return
            session = self._readers.take()
            txn = session.begin()
            result = job.context.run(job.fn, txn, *job.args, **job.kwargs)
        except BaseException as error:
            self._end(self._readers, session)
            self._back(self._finished, job, None, self._cause(session, error))
        else:
            # The answer need not wait for the end of a transaction that changed nothing.
            self._back(self._finished, job, result, None)
            self._end(self._readers, session)
            failed = False
        self._report(job, began, txn, failed)

    def _run_write(self, job: _Job) -> None:
        began = self._reactor.seconds()
        session: Session | None = None
        txn: Transaction | None = None
        failed = True
        try:
            if job.cancelled:
                self._back(self._finished, job, None, None)
                return
            session = self._writers.take()
            txn = session.begin()
            result = job.context.run(job.fn, txn, *job.args, **job.kwargs)
            if txn.invalidations:
                pos = txn.last_pos or txn.next_pos()
                invalidations.add(txn, pos, txn.invalidations, int(began * 1000))
            session.commit()
        except BaseException as error:
            self._end(self._writers, session)
            self._back(self._finished, job, None, self._cause(session, error))
        else:
            self._writers.give_back(session)
            self._back(self._committed, job, txn, result)
            failed = False
        self._report(job, began, txn, failed)

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

    def _report(self, job: _Job, began: float, txn: Transaction | None, failed: bool) -> None:
        if self._observe is None:
            return
        name = getattr(job.fn, "__qualname__", type(job.fn).__name__)
        took = self._reactor.seconds() - began
        statements = 0 if txn is None else txn.statements
        timing = Timing(name, job.kind, began - job.queued, took, statements, failed)
        self._back(self._observe, timing)

    # Back on the reactor thread

    def _finished(self, job: _Job, result: Any, error: BaseException | None) -> None:
        if not job.done.called:  # else cancelled
            if error is None:
                job.done.callback(result)
            else:
                job.done.errback(error)
        self._one_less()

    def _committed(self, job: _Job, txn: Transaction, result: Any) -> None:
        try:
            job.context.run(self._take_effect, txn)
        finally:
            if not job.done.called:
                job.done.callback(result)
            self._one_less()

    def _take_effect(self, txn: Transaction) -> None:
        for cache, key in txn.invalidations:
            self._drop(cache, key)
        if txn.last_pos:
            self.positions.own_commit(txn.first_pos, txn.last_pos)
        for callback in txn.callbacks:
            self._guarded(callback)
        if not txn.channels:
            return
        channels = tuple(txn.channels)
        for listener in self._commit_listeners:
            self._guarded(listener, channels, txn.last_pos)
        self.publish(channels, txn.last_pos)

    def publish(self, channels: tuple[str, ...], pos: int) -> None:
        """Send hints to the other processes: "something up to `pos` concerns these channels"."""
        if self._bus is not None:
            payload = f"{self.process_token}:{pos}".encode()
            for channel in channels:
                self._bus.publish(channel, payload)

    def _guarded(self, fn: Callable[..., Any], *args: Any) -> None:
        try:
            fn(*args)
        except Exception:
            _log.exception("An effect of a committed transaction failed", effect=repr(fn))

    def _drop(self, cache: str, key: str) -> None:
        for callback, _ in self._caches.get(cache, ()):
            self._guarded(callback, key)

    # Positions and what follows them

    async def position(self, *, fresh: bool = False) -> int:
        """The position up to which every commit is known here.

        Includes every write that this process has finished. `fresh` asks the database, and so
        includes what other processes have committed.
        """
        if fresh or self.positions.behind:
            await self.look()
        return self.positions.applied

    def look(self) -> Deferred[int]:
        """Read the clock and apply new invalidations; fires with the position then.

        Callers that come while one look is under way share the next.
        """
        waiter: Deferred[int] = Deferred()
        self._look_waiters.append(waiter)
        if not self._looking:
            self._looking = True
            ensureDeferred(self._look_for_all())
        return waiter

    async def _look_for_all(self) -> None:
        try:
            while self._look_waiters:
                waiters, self._look_waiters = self._look_waiters, []
                try:
                    await self._look_once()
                except Exception as error:
                    for waiter in waiters:
                        waiter.errback(error)
                else:
                    for waiter in waiters:
                        waiter.callback(self.positions.applied)
        finally:
            self._looking = False

    async def _look_once(self) -> None:
        before, known = self.positions.applied, self.positions.known
        pos, changed = await self.read(_clock_and_invalidations, before)
        if changed is None:
            _log.warning("This process slept through cache invalidations; emptying the caches")
            for listeners in self._caches.values():
                for _, everything in listeners:
                    if everything is not None:
                        self._guarded(everything)
        else:
            for cache, key in changed:
                self._drop(cache, key)
        self.positions.looked(pos, known)

    def on_invalidate(
        self, cache: str, callback: Callable[[str], None], everything: Callable[[], None] | None
    ) -> None:
        """Have `callback(key)` called when `key` of `cache` changes, in whichever process.

        `everything()` is called when keys may have been missed. A cache without it is for hints
        that may be lost.
        """
        self._caches[cache].append((callback, everything))

    def on_commit(self, listener: Callable[[tuple[str, ...], int], None]) -> None:
        """Have `listener(channels, pos)` called for each commit of this process with hints."""
        self._commit_listeners.append(listener)

    # The end

    def _one_less(self) -> None:
        self._running -= 1
        if self._running == 0:
            quiet, self._quiet = self._quiet, []
            for waiter in quiet:
                waiter.callback(None)

    async def close(self) -> None:
        """Let running transactions end, then close all connections."""
        self._closing = True
        while self._running:
            waiter: Deferred[None] = Deferred()
            self._quiet.append(waiter)
            await waiter
        self._readers.stop()
        self._writers.stop()
        # What the threads sent at the very end.
        turn: Deferred[None] = Deferred()
        self._reactor.callFromThread(turn.callback, None)
        await turn

    async def _on_session(self, pool: Pool, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(session, …)` in a thread of a pool, outside a transaction."""
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
            self._one_less()

        pool.submit(work)
        self._running += 1
        return await done


def _clock_and_invalidations(
    txn: Transaction, since: int
) -> tuple[int, list[tuple[str, str]] | None]:
    pos = clock.position(txn)
    return pos, invalidations.since(txn, since) if pos > since else []


def backend_for(url: str, *, connections: int = 10, statement_timeout_ms: int = 60_000) -> Backend:
    """The backend of a database URL: `sqlite:///PATH` (`sqlite:////` for an absolute path) or
    `postgresql://USER:PASSWORD@HOST:PORT/NAME`. Raises ValueError for any other.
    """
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SqliteBackend(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        # Imported here so that a server on SQLite does not load libpq.
        from storage.postgres import PostgresBackend

        return PostgresBackend(url, connections, statement_timeout_ms)
    raise ValueError(
        "A database URL starts with sqlite:/// and a path, or with postgresql:// and a server."
    )


async def open_database(
    url: str,
    *,
    reactor: Reactor,
    bus: Bus | None = None,
    connections: int = 10,
    statement_timeout_ms: int = 60_000,
    wait_for: float = 60.0,
    migrations: list[migrate.Migration] | None = None,
    observe: Callable[[Timing], None] | None = None,
) -> Database:
    """Connect, migrate, and return the database.

    Tries again with growing pauses for `wait_for` seconds. `connections` is the most that
    PostgreSQL is asked for. `observe` is told of every transaction, on the reactor thread.

    Raises DatabaseUnavailable, UnusableDatabase (its subclass DatabaseTooNew), ValueError for a
    malformed URL.
    """
    backend = backend_for(url, connections=connections, statement_timeout_ms=statement_timeout_ms)
    known = migrate.find() if migrations is None else migrations
    opening = Pool("open", 1, lambda: backend.connect(writable=True))
    database = Database(backend, reactor, bus, 0, observe)
    started = reactor.seconds()
    attempt = 0
    try:
        while True:
            attempt += 1
            try:
                start = await database._on_session(opening, _prepare, known)
                break
            except (DatabaseUnavailable, ConnectionLost, Conflict) as error:
                if reactor.seconds() - started >= wait_for:
                    raise DatabaseUnavailable(str(error)) from error
                delay = backoff(attempt, 0.25, 5.0)
                _log.warning("Waiting for the database", reason=str(error), seconds=delay)
            await sleep(reactor, delay)
    except BaseException:
        opening.stop()
        await database.close()
        raise
    opening.stop()
    database.positions = Positions(start)
    return database


def _prepare(session: Session, migrations: list[migrate.Migration]) -> int:
    for migration in migrate.migrate(session, migrations):
        _log.info("Migrated the database", migration=migration.path.stem)
    txn = session.begin()
    try:
        return clock.position(txn)
    finally:
        session.rollback()


__all__ = [
    "Database",
    "DatabaseUnavailable",
    "Timing",
    "UnusableDatabase",
    "backend_for",
    "open_database",
    "sleep",
]
