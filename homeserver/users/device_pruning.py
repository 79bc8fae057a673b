"""Logging out devices that nobody used for long."""

from __future__ import annotations

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.users.sessions import Sessions
from storage import devices
from storage.database import Database
from storage.transaction import Transaction

INTERVAL_S = 60 * 60
AT_ONCE = 50
"""Devices in one transaction: each of them is told to those who share rooms with its user."""
_log = structlog.get_logger(__name__)


class DevicePruning:
    """Deletes devices that were not heard of for `after_ms`; None: never.

    Dehydrated devices, which nobody uses, stay. Several processes may do so at once.
    """

    def __init__(
        self, db: Database, clock: IReactorTime, sessions: Sessions, after_ms: int | None
    ) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._after_ms = after_ms
        self._loop = LoopingCall(self._run_safely)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin."""
        if self._after_ms is not None:
            self._loop.start(INTERVAL_S, now=False)

    def stop(self) -> None:
        """End."""
        if self._loop.running:
            self._loop.stop()

    async def run(self) -> int:
        """Delete what was not used; how many devices."""
        if self._after_ms is None:
            return 0
        before = int(self._clock.seconds() * 1000) - self._after_ms
        total = 0
        while found := await self._db.read(devices.unused, before, AT_ONCE):
            deleted = await self._db.write(self._delete, found, before)
            total += deleted
            if not deleted:
                break
        return total

    def _delete(self, txn: Transaction, found: list[tuple[str, str]], before: int) -> int:
        n = 0
        for user_id, device_id in found:
            # It may have come back meanwhile.
            if devices.is_unused(txn, user_id, device_id, before):
                n += len(self._sessions.end_devices_in(txn, user_id, [device_id]))
        return n

    def _run_safely(self) -> Deferred[object]:
        done: Deferred[object] = Deferred.fromCoroutine(self.run())
        return done.addErrback(
            lambda failure: _log.error("Unused devices were not deleted", exc_info=failure.value)
        )
