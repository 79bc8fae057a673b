"""Events of other servers that wait for something: events before them, or their turn.

They are in a table, so that what was acknowledged survives. What one server sent for one room is a
queue. A process takes a queue under a lease and tries to add what is due, getting what is missing
from other servers; when the process dies, another takes the queue. What cannot be completed is
tried more and more rarely, and given up in the end. Queues do not wait for each other: a server
that answers slowly, or not with what is missing, harms its own only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.ticking import start_ticking
from storage import received, residence
from storage.database import Database
from storage.errors import StorageError
from storage.feed import Feed
from storage.leases import LeaseKeeper
from storage.received import Bounds, NewPdu, Queue, Staged
from storage.transaction import Transaction

LOOK_EVERY_S = 5.0
"""Seconds between two looks for events that are due."""
MAX_QUEUES = 16
"""Queues that a process works on at a time."""
MAX_SHARE = 4
"""Of these, queues of one server, and queues of one room."""
MAX_SEEN = 2_000
"""Queues among which a process chooses."""
BATCH = 50
"""Events that are tried together."""
ROUNDS = 20
"""Batches of a queue after which others have their turn."""
TRY_FOR_S = 180.0
"""Seconds after which a try counts as failed."""
FIRST_DELAY_MS = 10_000
MAX_DELAY_MS = 3_600_000
MAX_ATTEMPTS = 12
MAX_AGE_MS = 24 * 3_600_000
"""An event is given up after so many tries or so long, whichever comes first."""

_log = structlog.get_logger(__name__)


class Verdict(Protocol):
    """What became of an event: see `homeserver.rooms.receive.Judged`."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str | None: ...


class GapFiller(Protocol):
    """What is needed of `homeserver.rooms.missing.MissingEvents`."""

    async def receive(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> Mapping[str, Verdict]: ...


class _Outcome(NamedTuple):
    """Of a batch: IDs of events that are dealt with, and why the others are not."""

    done: set[str]
    failed: dict[str, str]


class Backlog:
    """Keeps events that wait, and works on them.

    Parameters: `filler` adds events after getting what they need; `bounds` on what may wait.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        filler: GapFiller,
        clock: IReactorTime,
        bounds: Bounds | None = None,
    ) -> None:
        self._db = db
        self._feed = feed
        self._filler = filler
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._keeper = LeaseKeeper(db, clock, db.process_token, self._lease_lost)
        self._draining: dict[str, Deferred[bool]] = {}
        self._shares: Counter[int | str] = Counter()
        self._looking = False
        self._look_again = False
        self._stopped = False
        self._waiting_for_idle: list[Deferred[None]] = []
        self._unsubscribe: Callable[[], object] | None = None
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to work on what waits."""
        self._unsubscribe = self._feed.subscribe(received.STAGED, lambda pos: self.look())
        self._feed.on_missed(self.look)
        start_ticking(self._loop, LOOK_EVERY_S, now=True)

    async def stop(self) -> None:
        """Work no more. What is not done stays in the table."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()
        if self._unsubscribe is not None:
            self._unsubscribe()
        for work in list(self._draining.values()):
            work.cancel()
        await self.idle()
        await self._keeper.stop()

    async def idle(self) -> None:
        """Returns when this process works on nothing: for tests and a clean stop."""
        while self._looking or self._draining:
            waiter: Deferred[None] = Deferred()
            self._waiting_for_idle.append(waiter)
            await waiter

    async def stage(self, room_nid: int, origin: str, events: Sequence[Event]) -> set[str]:
        """Keep events until they can be added; IDs of those that are kept.

        The others are too many, or too large, for what one room or one server may have waiting.
        """
        pdus = [NewPdu(event.event_id, event.depth, event.to_json().decode()) for event in events]
        kept = await self._db.write(
            received.stage, room_nid, origin, pdus, self._bounds, self._now_ms()
        )
        if len(kept) < len(events):
            _log.warning(
                "events of another server refused: too many wait",
                origin=origin,
                room=room_nid,
                refused=len(events) - len(kept),
            )
        return kept

    def look(self) -> None:
        """Look soon for rooms with events that are due."""
        if self._stopped:
            return
        if self._looking:
            self._look_again = True
            return
        self._looking = True
        Deferred.fromCoroutine(self._look()).addErrback(
            lambda failure: _log.warning("Waiting events not seen", reason=str(failure.value))
        )

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def _look(self) -> None:
        try:
            while not self._stopped:
                self._look_again = False
                if len(self._draining) < MAX_QUEUES:
                    await self._take_queues()
                if not self._look_again:
                    return
        finally:
            self._looking = False
            self._tell_idle()

    async def _take_queues(self) -> None:
        seen = await self._db.read(received.due_queues, self._now_ms(), MAX_SEEN)
        shares = Counter(self._shares)
        chosen: dict[str, Queue] = {}
        for queue in seen:
            name = _lease(queue)
            if name in self._draining or max(shares[k] for k in _shared(queue)) >= MAX_SHARE:
                continue
            chosen[name] = queue
            shares.update(_shared(queue))
            if len(chosen) + len(self._draining) >= MAX_QUEUES:
                break
        if not chosen:
            return
        # Some of them may be other processes'.
        claimed = await self._keeper.claim(chosen)
        for name in claimed:
            if not self._stopped:
                self._begin(name, chosen[name])

    def _begin(self, name: str, queue: Queue) -> None:
        self._shares.update(_shared(queue))
        work: Deferred[bool] = Deferred.fromCoroutine(self._drain(queue))
        self._draining[name] = work

        def ended(went_well: object) -> None:
            del self._draining[name]
            self._shares.subtract(_shared(queue))
            self._shares += Counter()
            if went_well is True:
                self.look()
            self._tell_idle()

        work.addBoth(ended)

    def _tell_idle(self) -> None:
        if not self._looking and not self._draining:
            waiting, self._waiting_for_idle = self._waiting_for_idle, []
            for waiter in waiting:
                waiter.callback(None)

    def _lease_lost(self, name: str) -> None:
        work = self._draining.get(name)
        if work is not None:
            work.cancel()

    async def _drain(self, queue: Queue) -> bool:
        """Work on a queue until nothing in it is due, or others shall have their turn.

        Returns whether that went well, so that one may look for more at once.
        """
        try:
            if not await self._db.read(_is_here, queue.room_id):
                gone = await self._db.write(received.remove_room, queue.room_nid)
                _log.info("events of a left room dropped", room_id=queue.room_id, events=gone)
                return True
            for _ in range(ROUNDS):
                if not await self._try_some(queue):
                    break
            return True
        except CancelledError:
            return False
        except Exception as error:
            _log.warning(
                "waiting events not added",
                room_id=queue.room_id,
                origin=queue.origin,
                reason=repr(error),
            )
            return False
        finally:
            # Also after being cancelled; another process may go on at once.
            if not self._stopped:
                await self._release(_lease(queue))

    async def _release(self, name: str) -> None:
        try:
            await self._keeper.release([name])
        except StorageError as error:
            _log.warning("A lease is not released", lease=name, reason=str(error))

    async def _try_some(self, queue: Queue) -> bool:
        """Try what is due, a batch at most; False if there is nothing."""
        staged = await self._db.read(received.due, queue, self._now_ms(), BATCH)
        version = ROOM_VERSIONS[queue.version]
        events = [Event.from_json(item.json, version, item.event_id) for item in staged]
        if not events:
            return False
        outcome = await self._outcome(queue, version, events)
        await self._db.write(_settle, queue, staged, outcome, self._now_ms())
        return True

    async def _outcome(
        self, queue: Queue, version: RoomVersion, events: Sequence[Event]
    ) -> _Outcome:
        try:
            verdicts = await self._fill(queue, version, events)
        except (CancelledError, StorageError):
            raise
        except DeferredTimeout:
            reason = f"it took more than {TRY_FOR_S:.0f} seconds"
            return _Outcome(set(), {event.event_id: reason for event in events})
        except Exception as error:
            if len(events) == 1:
                event_id = events[0].event_id
                _log.error("A waiting event fails", event_id=event_id, exc_info=error)
                return _Outcome(set(), {event_id: repr(error)})
            # One that nobody can deal with must not take the others with it.
            alone = [await self._outcome(queue, version, [event]) for event in events]
            return _Outcome(
                {name for outcome in alone for name in outcome.done},
                {name: why for outcome in alone for name, why in outcome.failed.items()},
            )
        done, failed = set(), {}
        for event in events:
            verdict = verdicts.get(event.event_id)
            if verdict is not None and verdict.status >= 0:
                done.add(event.event_id)
            else:
                why = verdict.reason if verdict is not None else None
                failed[event.event_id] = why or "it could not be added"
        return _Outcome(done, failed)

    async def _fill(
        self, queue: Queue, version: RoomVersion, events: Sequence[Event]
    ) -> Mapping[str, Verdict]:
        async def fill() -> Mapping[str, Verdict]:
            return await self._filler.receive(queue.origin, queue.room_id, version, events)

        return await Deferred.fromCoroutine(fill()).addTimeout(TRY_FOR_S, self._clock)


def _lease(queue: Queue) -> str:
    return f"staged:{queue.room_nid}:{queue.origin}"


def _shared(queue: Queue) -> tuple[int | str, ...]:
    """What a queue has in common with others: its room, and its server."""
    return queue.room_nid, queue.origin


def retry_delay_ms(attempts: int) -> int:
    """How long an event waits that failed so often."""
    return int(min(FIRST_DELAY_MS * 3 ** (attempts - 1), MAX_DELAY_MS))


def _is_here(txn: Transaction, room_id: str) -> bool:
    room = residence.known_rooms(txn, [room_id]).get(room_id)
    return room is not None and room.is_here


def _settle(
    txn: Transaction, queue: Queue, staged: Sequence[Staged], outcome: _Outcome, now_ms: int
) -> None:
    given_up = []
    later = []
    for item in staged:
        if item.event_id in outcome.done:
            continue
        attempts = item.attempts + 1
        if attempts >= MAX_ATTEMPTS or now_ms - item.received_ts >= MAX_AGE_MS:
            given_up.append(item)
        else:
            later.append((item.event_id, now_ms + retry_delay_ms(attempts)))
    received.remove(txn, queue.room_nid, outcome.done | {item.event_id for item in given_up})
    received.postpone(txn, queue.room_nid, later)
    if given_up:
        txn.after_commit(partial(_tell_given_up, queue, given_up, outcome))


def _tell_given_up(queue: Queue, given_up: Sequence[Staged], outcome: _Outcome) -> None:
    for item in given_up:
        _log.warning(
            "event given up",
            event_id=item.event_id,
            room_id=queue.room_id,
            origin=item.origin,
            attempts=item.attempts + 1,
            reason=outcome.failed.get(item.event_id),
        )
