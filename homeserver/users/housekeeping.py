"""Removing what has expired: interactive authentications, proofs, and short-lived tokens."""

from __future__ import annotations

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from storage import one_time_tokens, sso_sessions, tokens, uia_sessions, validations
from storage.database import Database
from storage.transaction import Transaction

INTERVAL_S = 15 * 60
_log = structlog.get_logger(__name__)


class UserHousekeeping:
    """Removes expired rows every quarter of an hour; several processes may do so at once."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
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
        """Remove what has expired; returns the number of rows."""
        return await self._db.write(_delete_expired, int(self._clock.seconds() * 1000))

    def _run_safely(self) -> Deferred[object]:
        done: Deferred[object] = Deferred.fromCoroutine(self.run())
        return done.addErrback(
            lambda failure: _log.error("Expired rows were not removed", exc_info=failure.value)
        )


def _delete_expired(txn: Transaction, now_ms: int) -> int:
    owners = (one_time_tokens, sso_sessions, tokens, uia_sessions, validations)
    return sum(owner.delete_expired(txn, now_ms) for owner in owners)
