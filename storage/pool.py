"""Threads with a database connection each.

A pool of its own for reads and one for writes, so that slow reads never keep a write waiting.
Threads and connections are made when first needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from homeserver.workers import Stopped, Workers
from storage.dialect import Dialect
from storage.direct import Direct
from storage.errors import DatabaseClosed
from storage.transaction import Row, Transaction


class Reactor(Protocol):
    """What storage needs of a Twisted reactor."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Any: ...

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None: ...


class Session(Protocol):
    """One connection, used by one thread at a time; closed instead of reused once `broken`."""

    broken: bool

    def begin(self) -> Transaction:
        """Open a transaction. Raises Retry."""

    def begin_single(self) -> Transaction:
        """Open a transaction for one statement, which commits it. Raises Retry.

        The statement raises CommitUnknown when the connection breaks meanwhile.
        """

    def commit(self) -> None:
        """Raises Retry when nothing was committed, CommitUnknown when nobody knows."""

    def rollback(self) -> None:
        """Never raises; marks the session as broken when it cannot be used again."""

    def lock_schema(self, txn: Transaction) -> None:
        """Wait until no other process is migrating, and keep them out until the end."""

    def close(self) -> None:
        """Never raises."""


class SingleWriter(Protocol):
    """A connection for statements that write. Used on the reactor thread."""

    def row(self, sql: str, args: Sequence[str]) -> Deferred[list[Row]] | None:
        """See `storage.single_postgres.PostgresSingle`."""

    def close(self) -> None:
        """Close it; what is under way ends with CommitUnknown."""


class Backend(Protocol):
    """One kind of database."""

    @property
    def dialect(self) -> Dialect: ...

    @property
    def readers(self) -> int:
        """How many connections read."""

    @property
    def writers(self) -> int:
        """How many connections write."""

    def connect(self, *, writable: bool) -> Session:
        """Open a session, blocking. Raises DatabaseUnavailable, UnusableDatabase."""

    def direct(self, reactor: Reactor) -> Direct | None:
        """Connections for point queries, if there are to be any; they open when needed."""

    def single(self, reactor: Reactor) -> SingleWriter | None:
        """A connection for `storage.single`, if there is to be one; it opens when needed."""

    def committed(self, session: Any, transaction_id: str) -> bool | None:
        """Whether a transaction whose COMMIT got no answer was committed; None: not known."""


class Pool:
    """At most `size` threads that take jobs; idle sessions are kept for the next job."""

    def __init__(self, name: str, size: int, connect: Callable[[], Session]) -> None:
        self._workers = Workers(name, size)
        self._connect = connect
        self._sessions: deque[Session] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job`, which must not raise, in a thread. Called on the reactor thread."""
        try:
            self._workers.submit(job)
        except Stopped:
            raise DatabaseClosed("The database is closed.") from None

    @property
    def is_idle(self) -> bool:
        """Whether every thread waits for a job."""
        return self._workers.is_idle

    def take(self) -> Session:
        """A session for one transaction, in a thread of the pool. Raises as `connect` does."""
        try:
            return self._sessions.pop()
        except IndexError:
            return self._connect()

    def give_back(self, session: Session) -> None:
        """Return a session. One that is broken takes the idle ones with it.

        A server that was restarted has closed them too, and each would fail one more job.
        """
        if not session.broken:
            self._sessions.append(session)
            return
        session.close()
        self.drop_idle()

    def drop_idle(self) -> None:
        """Close every session that is not in use."""
        while True:
            try:
                self._sessions.pop().close()
            except IndexError:
                return

    def stop(self) -> None:
        """End threads and sessions. Jobs already submitted are run first."""
        self._workers.stop()
        self.drop_idle()
