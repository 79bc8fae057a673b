"""Tells pushers what waits for them.

Any process takes any pusher that is due and that nobody has, one push of a pusher after the other.
A push is deleted when it has been answered: a process that is killed leaves at most one push of
each pusher that it was serving to be sent again, with the same event ID. A gateway that fails is
left alone for longer and longer, and what waits for it is given up when it is too old.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from homeserver.core.types import JsonObject
from homeserver.push import message
from homeserver.push.gateways import BUSY, DELIVERED, FAILED, REJECTED, Answer, Channel
from homeserver.push.message import NotTold
from homeserver.rooms.badges import Badges
from homeserver.ticking import start_ticking
from storage import push_log, push_queue, pushers
from storage.bus import Unsubscribe
from storage.database import Database, sleep
from storage.errors import log_failure
from storage.feed import Feed
from storage.push_queue import Waiting, Work
from storage.pushers import PusherRow
from storage.state import StateStore
from storage.transaction import Transaction

POLL_S = 5.0
STOP_S = 3.0
"""How long a stopping process waits for the answers of gateways."""
MAX_AT_A_TIME = 50
"""Pushes to one pusher before others have their turn."""
FIRST_PAUSE_MS = 1_000
LONGEST_PAUSE_MS = 15 * 60_000
PRUNE_S = 600.0
PRUNE_ROWS = 5_000
SKIPPED, GIVEN_UP, DROPPED = "not needed", "given up", "dropped"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """See `config.model.push.Push`; times in milliseconds."""

    at_once: int = 32
    at_once_per_gateway: int = 8
    give_up_after: int = 86_400_000
    keep_log: int = 7 * 86_400_000
    with_content: bool = True


class Prepared(NamedTuple):
    """The next thing to do for a pusher. `body` None: nothing is sent."""

    pusher: PusherRow | None
    waiting: Waiting | None
    body: JsonObject | None = None
    badge: int | None = None
    outcome: str = ""
    detail: str = ""
    event_id: str | None = None


class Observer(Protocol):
    """Told of the outcome of each push: for metrics."""

    def __call__(self, kind: str, outcome: str, /) -> None: ...


class Digest(Protocol):
    """Serves pushers for which several events make one message."""

    def serve(self, txn: Transaction, work: Work, pusher: PusherRow, owner: str) -> str: ...


class PushDelivery:
    """See the module.

    Parameters: `owner`, the token of this process; `channels` and `digests` by kind of pusher;
    `counted`, see `Observer`.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        clock: Any,
        states: StateStore,
        badges: Badges,
        channels: Mapping[str, Channel],
        digests: Mapping[str, Digest],
        settings: DeliverySettings,
        counted: Observer,
    ) -> None:
        self._db = db
        self._feed = feed
        self._clock = clock
        self._owner = db.process_token
        self._states = states
        self._badges = badges
        self._channels = channels
        self._digests = digests
        self._settings = settings
        self._counted = counted
        self._busy: Counter[str] = Counter()
        self._busy_users: Counter[str] = Counter()
        self._serving: dict[int, Deferred[None]] = {}
        self._claiming: Deferred[None] | None = None
        self._again = False
        self._stopped = True
        self._unsubscribe: Unsubscribe | None = None
        self._next: IDelayedCall | None = None
        self._poll = LoopingCall(self.wake)
        self._upkeep = LoopingCall(self._keep_safely)
        self._poll.clock = self._upkeep.clock = clock
        self._next_prune = clock.seconds()

    @property
    def under_way(self) -> int:
        """How many pushers this process is serving."""
        return len(self._serving)

    def start(self) -> None:
        """Begin: now, at each hint, and every few seconds."""
        self._stopped = False
        self._unsubscribe = self._feed.subscribe(push_queue.CHANNEL, lambda pos: self.wake())
        self._feed.on_missed(self.wake)
        start_ticking(self._poll, POLL_S, now=True)
        self._upkeep.start(push_queue.CLAIM_MS / 3000, now=False)

    async def stop(self) -> None:
        """Take no more; wait a moment for what is on its way; leave the rest to others."""
        self._stopped = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        for loop in (self._poll, self._upkeep):
            if loop.running:
                loop.stop()
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._claiming is not None:
            claimed: Deferred[None] = Deferred()
            self._claiming.addBoth(claimed.callback)
            await claimed
        for _ in range(int(STOP_S * 20)):
            if not self._serving:
                return
            await sleep(self._clock, 0.05)
        left = dict(self._serving)
        for serving in left.values():
            serving.cancel()
        await DeferredList(list(left.values()), consumeErrors=True)
        await self._db.write(push_queue.give_back, list(left), self._owner)

    def wake(self) -> None:
        """Look for pushers that are due."""
        if self._stopped:
            return
        self._again = True
        if self._claiming is None:
            self._claiming = ensureDeferred(self._claim())
            self._claiming.addBoth(self._claimed)

    def _claimed(self, result: object) -> None:
        self._claiming = None
        if self._again and not self._stopped:
            self.wake()

    async def _claim(self) -> None:
        self._again = False
        free = self._settings.at_once - len(self._serving)
        if free < max(1, self._settings.at_once // 4):
            return  # the end of a push wakes this up; a few are claimed together
        now = self._now()
        try:
            due = await self._db.read(push_queue.next_due, now)
            if due is not None and due <= now:
                for work in await self._db.write(
                    push_queue.claim,
                    self._owner,
                    now,
                    free,
                    self._settings.at_once_per_gateway,
                    dict(self._busy),
                    max(1, self._settings.at_once // 8),
                    dict(self._busy_users),
                ):
                    self._begin(work)
            elif due is not None:
                self._wake_at(due)
        except Exception as error:
            _log.warning("Pushes could not be claimed", reason=str(error))
            self._again = False  # the next poll will

    def _wake_at(self, due: int) -> None:
        delay = max((due - self._now()) / 1000, 0.01)
        if delay >= POLL_S or self._stopped:
            return
        if self._next is not None and self._next.active():
            if self._next.getTime() <= self._clock.seconds() + delay:
                return
            self._next.cancel()
        self._next = self._clock.callLater(delay, self.wake)

    def _begin(self, work: Work) -> None:
        for busy, key in self._busy_with(work):
            busy[key] += 1
        # In the table before it can end.
        self._serving[work.pusher_nid] = Deferred()
        serving = ensureDeferred(self._serve_safely(work))
        if work.pusher_nid in self._serving:
            self._serving[work.pusher_nid] = serving

    def _busy_with(self, work: Work) -> tuple[tuple[Counter[str], str], ...]:
        # Of users too: one can name any number of gateways that never answer.
        return (self._busy, work.gateway), (self._busy_users, work.user_id)

    async def _serve_safely(self, work: Work) -> None:
        try:
            await self._serve(work)
        except Exception as error:
            # The claim runs out, and somebody tries again.
            if not self._stopped:
                log_failure(_log, "A pusher could not be served", error, pusher=work.pusher_nid)
                await self._hold_back(work)
        finally:
            self._serving.pop(work.pusher_nid, None)
            for busy, key in self._busy_with(work):
                busy[key] -= 1
                if not busy[key]:
                    del busy[key]
            self.wake()

    async def _hold_back(self, work: Work) -> None:
        try:
            due = self._now() + _pause(work.attempts)
            await self._db.write(push_queue.postpone, work, self._owner, due)
        except Exception as error:
            _log.warning("A pusher was not given back", reason=str(error))

    async def _serve(self, work: Work) -> None:
        for number in range(MAX_AT_A_TIME):
            prepared = await self._db.read(self._prepare, work)
            pusher = prepared.pusher
            if pusher is not None and pusher.is_active and pusher.kind in self._digests:
                outcome = await self._db.write(
                    self._digests[pusher.kind].serve, work, pusher, self._owner
                )
                self._counted(pusher.kind, outcome)
                return
            answer = Answer(prepared.outcome, prepared.detail)
            if prepared.body is not None and pusher is not None:
                answer = await self._channels[pusher.kind].send(pusher, prepared.body)
                self._counted(pusher.kind, answer.outcome)
            is_last = number == MAX_AT_A_TIME - 1 or self._stopped
            if await self._db.write(self._record, work, prepared, answer, is_last):
                return

    # In transactions

    def _prepare(self, txn: Transaction, work: Work) -> Prepared:
        pusher = pushers.by_number(txn, work.pusher_nid)
        if pusher is None or not pusher.is_active or pusher.kind in self._digests:
            return Prepared(pusher, None)
        if pusher.kind not in self._channels:
            return Prepared(pusher, None)
        now = self._now()
        for waiting in push_queue.waiting(txn, work.pusher_nid, 1):
            if waiting.queued_ts + self._settings.give_up_after <= now:
                return Prepared(pusher, waiting, outcome=GIVEN_UP, detail="too old")
            told = message.look_up(txn, self._states, pusher.user_id, waiting)
            if isinstance(told, NotTold):
                return Prepared(pusher, waiting, outcome=SKIPPED, detail=told.reason)
            badge = self._badges.count(txn, pusher.user_id, now)
            body = message.notification(
                txn,
                pusher,
                told,
                json.loads(waiting.tweaks),
                badge,
                with_content=self._settings.with_content,
            )
            event_id = told.event.event_id
            return Prepared(pusher, waiting, body, badge.unread, event_id=event_id)
        if not work.badge:
            return Prepared(pusher, None)
        badge = self._badges.count(txn, pusher.user_id, now)
        if badge.unread == (pusher.badge or 0):
            return Prepared(pusher, None, None, badge.unread)
        return Prepared(pusher, None, message.badge_update(pusher, badge), badge.unread)

    def _record(
        self, txn: Transaction, work: Work, prepared: Prepared, answer: Answer, is_last: bool
    ) -> bool:
        """Write down what became of a push; whether that was all for now."""
        if not push_queue.holds(txn, work.pusher_nid, self._owner):
            return True
        pusher, waiting, now = prepared.pusher, prepared.waiting, self._now()
        if pusher is None or not (pusher.is_active and pusher.kind in self._channels):
            push_queue.done(txn, work.pusher_nid, push_queue.ALL)
            push_queue.finish(txn, work, self._owner, now, None)
            return True
        self._note(txn, prepared, answer)
        if answer.outcome == REJECTED:
            pushers.delete(txn, [pusher])
            return True
        if answer.outcome in (FAILED, BUSY):
            self._postpone(txn, work, pusher, answer)
            return True
        if prepared.body is not None and work.gateway_attempts is not None:
            push_queue.gateway_works(txn, work.gateway)
        if prepared.badge is not None and answer.outcome in (DELIVERED, ""):
            pushers.set_badge(txn, pusher.pusher_nid, prepared.badge)
        if waiting is not None:
            push_queue.done(txn, pusher.pusher_nid, waiting.pos)
        has_badge = work.badge and waiting is not None and answer.outcome != DELIVERED
        if not has_badge and not (
            waiting is not None and push_queue.waiting(txn, pusher.pusher_nid, 1)
        ):
            push_queue.finish(txn, work, self._owner, now, None)
            return True
        if is_last:
            push_queue.finish(txn, work, self._owner, now, now)
        return is_last

    def _note(self, txn: Transaction, prepared: Prepared, answer: Answer) -> None:
        pusher, waiting = prepared.pusher, prepared.waiting
        if pusher is None or (waiting is None and answer.outcome in ("", DELIVERED)):
            return
        entry = push_log.entry(
            pusher,
            waiting.pos if waiting is not None else 0,
            answer.outcome,
            self._now(),
            detail=answer.detail,
            room_nid=waiting.room_nid if waiting is not None else None,
            event_id=prepared.event_id,
        )
        push_log.note(txn, [entry])

    def _postpone(self, txn: Transaction, work: Work, pusher: PusherRow, answer: Answer) -> None:
        now = self._now()
        due = now + _pause(work.attempts)
        if answer.outcome == BUSY:
            due = now + answer.retry_after_ms
            push_queue.gateway_paused(txn, work.gateway, now, due)
        elif answer.is_down:
            retry = push_queue.gateway_failed(
                txn, work.gateway, now, FIRST_PAUSE_MS, LONGEST_PAUSE_MS
            )
            due = max(due, retry)
        dropped = push_queue.shorten(txn, pusher.pusher_nid)
        push_log.note(
            txn,
            [
                push_log.entry(
                    pusher,
                    each.pos,
                    DROPPED,
                    now,
                    detail="too many wait for a gateway that does not answer",
                    room_nid=each.room_nid,
                )
                for each in dropped
            ],
        )
        push_queue.postpone(txn, work, self._owner, due)

    # Upkeep

    def _keep_safely(self) -> Deferred[None]:
        return ensureDeferred(self._keep())

    async def _keep(self) -> None:
        try:
            if self._serving:
                await self._db.write(
                    push_queue.renew, list(self._serving), self._owner, self._now()
                )
            if self._clock.seconds() >= self._next_prune:
                self._next_prune = self._clock.seconds() + PRUNE_S
                await self._db.write(self._prune)
        except Exception as error:
            _log.warning("Claims of pushers could not be renewed", reason=str(error))

    def _prune(self, txn: Transaction) -> None:
        now = self._now()
        push_log.prune(txn, now - self._settings.keep_log, PRUNE_ROWS)
        # Of those that go to a gateway that fails only one is tried at a time.
        old = push_queue.take_old(txn, now - self._settings.give_up_after, PRUNE_ROWS)
        told = {row.pusher_nid: row for row in pushers.by_numbers(txn, {w.pusher_nid for w in old})}
        push_log.note(
            txn,
            [
                push_log.entry(
                    told[each.pusher_nid],
                    each.pos,
                    GIVEN_UP,
                    now,
                    detail="too old",
                    room_nid=each.room_nid,
                )
                for each in old
                if each.pusher_nid in told
            ],
        )

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _pause(attempts: int) -> int:
    return int(min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** min(attempts, 30)))
