"""The door to the database: coroutines run plain functions in transactions, in threads.

`query` runs one small statement, without a thread where that can be done. `read` gives a function a
consistent snapshot; `write` runs it in one transaction, again when the database asks for it, and
carries out what it registered (`Transaction.invalidate`, `after_commit`, `notify`) once it is
committed. Cancelling the caller never interrupts a running transaction: its effects happen, only
its result is dropped.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from twisted.internet.defer import Deferred, ensureDeferred

from storage import clock, invalidations, migrate
from storage.bus import Bus
from storage.dialect import Dialect
from storage.direct import NotDirect, QueryCounts
from storage.errors import (
    CommitUnknown,
    Conflict,
    ConnectionLost,
    DatabaseFull,
    DatabaseUnavailable,
    UnusableDatabase,
)
from storage.point_query import PointQuery
from storage.pool import Backend, Pool, Reactor, Session
from storage.positions import Positions
from storage.single import Single, in_thread
from storage.sqlite import SqliteBackend
from storage.threads import Threads, Timing, backoff, sleep
from storage.transaction import Effects, Row, Transaction

P = ParamSpec("P")
T = TypeVar("T")

CONFLICT_ATTEMPTS = 30
GIVE_UP_AFTER = 30.0
"""Seconds that a caller waits for a database that is away."""

_log = structlog.get_logger(__name__)


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
        self._direct = backend.direct(reactor)
        self._single = backend.single(reactor)
        self.queries = QueryCounts()
        self._threads = Threads(backend, reactor, self._take_effect, self._report)
        self._caches: dict[str, list[tuple[Callable[[str], None], Callable[[], None] | None]]] = (
            defaultdict(list)
        )
        self._commit_listeners: list[Callable[[tuple[str, ...], int], None]] = []
        self._look_waiters: list[Deferred[int]] = []
        self._looking = False
        self._closing = False
        self._is_away = False

    # Transactions

    async def query(self, query: PointQuery[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What one statement finds, see `storage.point_query`.

        It sees every commit that this process was told of. Raises DatabaseUnavailable when the
        database stays away, InvalidText.
        """
        name = query.__qualname__
        if self._direct is not None:
            rows = self._direct.rows(query, query.given(self.dialect, *args, **kwargs))
            if isinstance(rows, Deferred):
                rows = await self._answer(rows)
            if rows is not None:
                self.queries.direct[name] += 1
                return query.result(rows)
        self.queries.thread[name] += 1
        return await self.read(query, *args, **kwargs)

    async def _answer(self, rows: Deferred[list[Row]]) -> list[Row] | None:
        self._threads.one_more()
        try:
            return await rows
        except NotDirect:
            return None
        finally:
            self._threads.one_less()

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

    async def write_single(self, single: Single[T]) -> T:
        """As `write`, for one statement, which commits itself: see `storage.single`.

        Raises CommitUnknown when the connection broke meanwhile: the statement may even be still
        at work.
        """
        if self._single is not None:
            began = self._reactor.seconds()
            rows = self._single.row(single.postgres, single.arguments())
            found = await self._answer(rows) if rows is not None else None
            if found is not None:
                effects = Effects()
                result = single.result(effects, found[0])
                self._take_effect(effects)
                took = self._reactor.seconds() - began
                self._report(Timing(type(single).__qualname__, "single", 0.0, took, 1, False))
                return result
        result = await self._retried("single", in_thread, (single,), {})
        return result

    async def _retried(self, kind: str, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        started = self._reactor.seconds()
        attempt = 0
        while True:
            attempt += 1
            try:
                result = await self._threads.submit(kind, fn, args, kwargs)
                if self._is_away:
                    self._is_away = False
                    _log.info("The database is back")
                return result
            except Conflict:
                if attempt >= CONFLICT_ATTEMPTS:
                    raise
                delay = backoff(attempt, 0.002, 0.25)
            except DatabaseFull:
                raise
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
                return await self._threads.on_session(self._backend.committed, error.transaction_id)
            except (ConnectionLost, DatabaseUnavailable, Conflict):
                if self._reactor.seconds() - started >= GIVE_UP_AFTER or self._closing:
                    return None
            await sleep(self._reactor, backoff(attempt, 0.05, 2.0))

    # Effects of a commit

    def _take_effect(self, txn: Effects) -> None:
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
            self._bus.publish_all(channels, f"{self.process_token}:{pos}".encode())

    def _report(self, timing: Timing) -> None:
        if self._observe is not None:
            self._observe(timing)

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

    async def close(self) -> None:
        """Let running transactions end, then close all connections."""
        self._closing = True
        await self._threads.quiet()
        if self._direct is not None:
            self._direct.close()
        if self._single is not None:
            self._single.close()
        await self._threads.stop()


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
                start = await database._threads.on_session(_prepare, known, pool=opening)
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
    "backoff",
    "open_database",
    "sleep",
]
