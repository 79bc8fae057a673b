"""Reading the log after the fact, once for the whole server. Table `log_readers`.

What is made of the log, such as an index of words, need not be made in the transactions that
write it. A reader has a position in the table, up to which its work is done. Any process moves it
on: in small steps, each one transaction that both does the work and moves the position, so that
two processes never do the same twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from homeserver.semaphore import Semaphore
from storage.database import Database
from storage.errors import CommitUnknown, DatabaseUnavailable, log_failure
from storage.single import Single
from storage.transaction import Transaction

AGAIN_S = 5.0
"""Seconds until the next try where the database was away or full."""
DELAY_S = 1.0
"""Seconds from the first news until they are read in the background."""
PATIENCE_S = 120.0
"""Seconds without a step after which a reading is given up for lost and another begins. Positions
move in the database, where two readings do nothing twice."""
STOP_S = 5.0
"""Seconds that stopping waits for the step under way."""
IDLE_STEP = 2_000
"""Positions without anything of interest that are passed over before that is written down."""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


def position(txn: Transaction, name: str) -> int:
    """The position up to which a reader has read."""
    return int(txn.value("SELECT pos FROM log_readers WHERE name = ?", (name,)) or 0)


def position_and_end(txn: Transaction, name: str) -> tuple[int, int]:
    """The position up to which a reader has read, and the last one that the transaction sees."""
    sql = "SELECT r.pos, c.pos FROM clock c LEFT JOIN log_readers r ON r.name = ?"
    row = txn.one(sql, (name,))
    assert row is not None, "the clock has one row"
    return int(row[0] or 0), int(row[1])


def advance(txn: Transaction, name: str, old: int, new: int) -> bool:
    """Move a reader on; False if another process has done so. To be called first: until the end
    of the transaction nobody else can."""
    sql = "UPDATE log_readers SET pos = ? WHERE name = ? AND pos = ?"
    return txn.execute(sql, (new, name, old)) == 1


MOVED = (
    "moved AS (UPDATE log_readers SET pos = span.positions[2]"
    " FROM (SELECT ?::bigint[] AS positions) AS span"
    " WHERE name = ? AND pos = span.positions[1] RETURNING 1)"
)
"""`advance` as a part of a larger statement of PostgreSQL: it has a row if the reader was moved.
Arguments: the old and the new position as an array, and the name."""


class LogReader(ABC, Generic[T]):
    """Follows the log. Used on the reactor thread."""

    def __init__(self, db: Database, reactor: IReactorTime, name: str) -> None:
        self._db = db
        self._reactor = reactor
        self._name = name
        self._turn = Semaphore(1)
        self._call: IDelayedCall | None = None
        self._reading: object | None = None
        self._read_more = False
        self._stepped_at = 0.0
        self._stopped = False

    @abstractmethod
    def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, T | None]:
        """What is of interest in `after < pos <= upto`, and up to where it was looked for."""

    @abstractmethod
    def write(self, txn: Transaction, found: T) -> None:
        """Do the work."""

    def single(self, after: int, upto: int, found: T) -> Single[object] | None:
        """One statement that does the work, and moves the reader on from `after` to `upto`, if
        there is one; it does neither if the reader is not at `after` any more."""
        return None

    def wake(self) -> None:
        """There is something new: read it soon."""
        self._wake_in(DELAY_S)

    def _wake_in(self, seconds: float) -> None:
        if self._call is None and not self._stopped:
            self._call = self._reactor.callLater(seconds, self._run)

    async def catch_up(self, steps: int = 1_000_000) -> bool:
        """Read what there is, in at most so many steps; whether that was all."""
        turn = await self._acquired(PATIENCE_S)
        try:
            for _ in range(steps):
                if self._stopped or await self._step():
                    return True
            return False
        finally:
            if turn is self._turn:
                turn.release()

    async def stop(self) -> None:
        """Read no more, once the step under way is done."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        turn = await self._acquired(STOP_S)
        turn.release()

    async def _acquired(self, patience_s: float) -> Semaphore:
        """A turn, also if whoever has it does not give it back."""
        waiting: Deferred[Any] = self._turn.acquire()
        if not waiting.called:
            waiting.addTimeout(patience_s, self._reactor)
        try:
            await waiting
        except DeferredTimeout:
            _log.error("A reading of the log has not ended", reader=self._name)
            self._turn = Semaphore(1)
            await self._turn.acquire()
        return self._turn

    async def _step(self) -> bool:
        """Whether nothing is left."""
        self._stepped_at = self._reactor.seconds()
        after, upto, end, found = await self._db.read(self._look)
        # The next step begins where the table says: it has to, if there is more to be read.
        goes_on = after < upto < end
        single = self.single(after, upto, found) if found is not None else None
        if single is not None:
            try:
                await self._db.write_single(single)
            except CommitUnknown:
                return False
        elif found is not None or upto - after >= IDLE_STEP or goes_on:
            await self._db.write(self._work, after, upto, found)
        return upto >= end

    def _look(self, txn: Transaction) -> tuple[int, int, int, T | None]:
        after, end = position_and_end(txn, self._name)
        if after >= end:
            return after, after, end, None
        upto, found = self.read(txn, after, end)
        return after, upto, end, found

    def _work(self, txn: Transaction, after: int, upto: int, found: T | None) -> None:
        if advance(txn, self._name, after, upto) and found is not None:
            self.write(txn, found)

    def _run(self) -> None:
        self._call = None
        self._read_more = True
        lost = self._reactor.seconds() - self._stepped_at > PATIENCE_S
        if self._reading is not None and not lost:
            return  # what reads goes on with it
        reading = self._reading = object()
        self._stepped_at = self._reactor.seconds()
        done: Deferred[Any] = Deferred.fromCoroutine(self._read_all(reading))
        done.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        log_failure(_log, "The log was not read", failure.value, reader=self._name)
        if isinstance(failure.value, DatabaseUnavailable):
            # Its turn comes again; nothing new need happen. A database without room says so at
            # once, each time.
            self._wake_in(AGAIN_S)

    async def _read_all(self, reading: object) -> None:
        try:
            while self._read_more and not self._stopped and reading is self._reading:
                self._read_more = False
                await self.catch_up()
        finally:
            if reading is self._reading:
                self._reading = None
