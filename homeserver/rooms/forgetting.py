"""Removing what is kept for a time only: that events are sticky, and what redacted ones said."""

from __future__ import annotations

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from storage import redacted_contents, sticky_events
from storage.database import Database
from storage.transaction import Transaction

INTERVAL_S = 10 * 60
_log = structlog.get_logger(__name__)


class Forgetting:
    """Removes old rows every ten minutes; several processes may do so at once.

    `redacted_ms`: how long the content of redacted events is kept.
    """

    def __init__(self, db: Database, clock: IReactorTime, redacted_ms: int) -> None:
        self._db = db
        self._clock = clock
        self._redacted_ms = redacted_ms
        self._loop = LoopingCall(self._run_safely)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin."""
        self._loop.start(INTERVAL_S, now=False)

    def stop(self) -> None:
        """End."""
        if self._loop.running:
            self._loop.stop()

    async def run(self) -> int:
        """Remove what is old; returns the number of rows."""
        return await self._db.write(self._forget, int(self._clock.seconds() * 1000))

    def _forget(self, txn: Transaction, now_ms: int) -> int:
        redacted = redacted_contents.delete_old(txn, now_ms, self._redacted_ms)
        return redacted + sticky_events.delete_expired(txn, now_ms)

    def _run_safely(self) -> Deferred[object]:
        done: Deferred[object] = Deferred.fromCoroutine(self.run())
        return done.addErrback(
            lambda failure: _log.error("Old rows were not removed", exc_info=failure.value)
        )
