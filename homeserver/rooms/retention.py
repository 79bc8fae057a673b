"""Messages that are not kept for ever (MSC1763).

A message that is older than its room keeps messages is shown to nobody, and other servers get it
redacted at most. Every hour the history up to the first event that is not so old is purged.
Of state events, and of the room's heads, nothing is hidden.

Times are what senders say. Where one is wrong, a message is purged with those around it: what is
said to come from the future holds up nothing, and nothing that is kept is purged because of what
is said to be old.
"""

from __future__ import annotations

import json

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.core.errors import MatrixError, unrecognized
from homeserver.core.retention import TYPES, RetentionPolicy
from homeserver.core.types import JsonObject
from homeserver.rooms.purge import HistoryPurge, Point
from storage import expiry, rooms, state
from storage.database import Database
from storage.transaction import Transaction

INTERVAL_S = 60 * 60
SKEW_MS = 5 * 60 * 1000
"""By so much clocks may differ."""
BATCH = 500

_log = structlog.get_logger(__name__)


class Retention:
    """What is too old in which room. `policy` None: messages are kept for ever."""

    def __init__(self, policy: RetentionPolicy | None, clock: IReactorTime) -> None:
        self._policy = policy
        self._clock = clock

    @property
    def enabled(self) -> bool:
        """Whether messages may ever be too old."""
        return self._policy is not None

    def configuration(self) -> JsonObject:
        """What clients are told. Raises MatrixError 404 M_UNRECOGNIZED if nothing is done."""
        if self._policy is None:
            raise unrecognized("This server keeps messages for ever.")
        return self._policy.to_json()

    def begins(self, txn: Transaction, room_nid: int) -> int | None:
        """The time before which messages of a room are too old, in milliseconds; None: never."""
        if self._policy is None:
            return None
        found = state.current(txn, room_nid, TYPES)
        row = next((found[key] for key in TYPES if key in found), None)
        content = json.loads(row.json).get("content", {}) if row is not None else None
        lifetime = self._policy.lifetime(content)
        return None if lifetime is None else self.now_ms() - lifetime

    def now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)


class RetentionPurge:
    """Purges what is too old every hour; several processes may do so."""

    def __init__(
        self,
        db: Database,
        retention: Retention,
        purge: HistoryPurge,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._retention = retention
        self._purge = purge
        self._loop = LoopingCall(self._run_safely)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin, if messages may ever be too old."""
        if self._retention.enabled:
            self._loop.start(INTERVAL_S, now=False)

    def stop(self) -> None:
        """End."""
        if self._loop.running:
            self._loop.stop()

    async def run(self) -> int:
        """Have everything purged that is too old; in how many rooms."""
        begun, after = 0, 0
        while True:
            numbers = await self._db.read(expiry.rooms, after, BATCH)
            for room_nid in numbers:
                begun += await self._room(room_nid)
            if len(numbers) < BATCH:
                return begun
            after = numbers[-1]

    async def _room(self, room_nid: int) -> bool:
        found = await self._db.read(self._point, room_nid)
        if found is None:
            return False
        room_id, point = found
        try:
            await self._purge.purge_before(room_id, point, delete_local_events=True)
        except MatrixError as refusal:
            # It is being purged, or was removed meanwhile.
            _log.info("room is not purged", room_id=room_id, reason=str(refusal))
            return False
        return True

    def _point(self, txn: Transaction, room_nid: int) -> tuple[str, Point] | None:
        """Up to where a room is to be purged."""
        begins = self._retention.begins(txn, room_nid)
        room = rooms.get_many(txn, [room_nid]).get(room_nid)
        if begins is None or room is None or not room.extremities:
            return None
        last = self._retention.now_ms() + SKEW_MS
        kept = expiry.first_kept(txn, room_nid, begins, last, room.extremities)
        if kept is None or not expiry.has_messages(txn, room_nid, kept.depth, room.extremities):
            return None
        return room.room_id, Point(event_id=kept.event_id)

    def _run_safely(self) -> Deferred[object]:
        done: Deferred[object] = Deferred.fromCoroutine(self.run())
        return done.addErrback(
            lambda failure: _log.error("Old messages were not purged", exc_info=failure.value)
        )
