"""When and from where devices were last seen, written in batches.

Requests only note it in memory. A device's note is written at most once in `INTERVAL_MS`; a
crash loses as much. (Client-server API: "may be a few minutes out of date".)
"""

from __future__ import annotations

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.cache import Cache
from storage import devices
from storage.database import Database
from storage.devices import Seen
from storage.errors import DatabaseUnavailable, log_failure

INTERVAL_MS = 60_000
MAX_USER_AGENT = 500
_BATCH = 200
_log = structlog.get_logger(__name__)


class DeviceActivity:
    """Collects sightings of devices. `start` once, `stop` before the database closes."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._pending: dict[tuple[str, str], Seen] = {}
        self._written: Cache[tuple[str, str], Seen] = Cache("devices_seen", share=0.1)
        self.caches = (self._written,)
        self._loop = LoopingCall(self._flush_safely)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin writing."""
        self._loop.start(INTERVAL_MS / 1000, now=False)

    async def stop(self) -> None:
        """Stop, and write what is left."""
        if self._loop.running:
            self._loop.stop()
        await self.flush()

    def seen(self, user_id: str, device_id: str, ts: int, ip: str, user_agent: str) -> int:
        """Note a request of a device.

        Returns until when it need not be told of further ones from this address.
        """
        key = (user_id, device_id)
        last = self._pending.get(key) or self._written.get(key)
        if last is None or ts >= last.ts + INTERVAL_MS or ip != last.ip:
            agent = user_agent[:MAX_USER_AGENT].replace("\0", "")
            last = self._pending[key] = Seen(user_id, device_id, ts, ip, agent)
        return last.ts + INTERVAL_MS

    def pending(self, user_id: str, device_id: str) -> Seen | None:
        """What is noted of a device but not yet written."""
        return self._pending.get((user_id, device_id))

    async def flush(self) -> None:
        """Write what is noted."""
        while self._pending:
            batch = [self._pending.pop(key) for key in list(self._pending)[:_BATCH]]
            try:
                await self._db.write(devices.record_seen, batch)
            except DatabaseUnavailable:
                for each in batch:  # What was noted meanwhile is newer.
                    self._pending.setdefault((each.user_id, each.device_id), each)
                raise
            for each in batch:
                self._written[each.user_id, each.device_id] = each

    def _flush_safely(self) -> Deferred[None]:
        done = Deferred.fromCoroutine(self.flush())
        return done.addErrback(
            lambda failure: log_failure(_log, "Last-seen times were not written", failure.value)
        )
