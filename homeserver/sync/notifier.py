"""Wakes clients that wait for something new.

1. Each user with a waiting client, or one that waited a moment ago, has a `Watch`: the rooms they
   are in, and a version that rises with every hint about those rooms or about them.
2. A client computes its answer, and waits only if the version is still what it was before: no hint
   is lost between looking and waiting.
3. Hints come from the feed. A room's channel is subscribed to once, however many users watch it.
   When hints on some channels may have been lost, everybody on them looks again; when any may
   have been, the database is asked once for all whom news concern.
4. Rooms are read again after a hint about the user, by every client that looks before that is
   done: none goes on with rooms that are not up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from storage import clock, memberships, news, profile_changes
from storage.bus import Bus, MemoryBus
from storage.database import Database
from storage.feed import Feed
from storage.news import News
from storage.transaction import Transaction

LINGER = 60.0
"""Seconds that a watch is kept after the last client of its user stopped waiting."""
MAX_SETTLED = 100
"""Devices of one user of which is remembered what they have."""


_log = structlog.get_logger(__name__)


class Settled(NamedTuple):
    """A device has everything up to a token, as long as the version of the watch stays."""

    version: int
    token: SyncToken
    until: float
    """When to look nevertheless."""
    answer: JsonObject
    """What the answer says that tells nothing new."""


class Watch:
    """What is watched for one user."""

    __slots__ = (
        "_unsubscribe",
        "heard",
        "is_dropped",
        "known",
        "last_used",
        "rooms",
        "settled",
        "user_id",
        "version",
        "waiters",
    )

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.version = 0
        self.rooms: frozenset[int] = frozenset()
        self.heard = 1
        """How many hints may have been about the user's memberships."""
        self.known = 0
        """How many of these `rooms` takes account of."""
        self.is_dropped = False
        """Whether it hears nothing any more."""
        self.waiters: set[Deferred[None]] = set()
        self.last_used = 0.0
        self.settled: dict[str, Settled] = {}
        """By device."""
        self._unsubscribe: Callable[[], None] | None = None

    def wake(self) -> None:
        """Something may be new."""
        self.version += 1
        waiters, self.waiters = self.waiters, set()
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def settle(self, device_id: str, settled: Settled) -> None:
        """Remember that a device has everything."""
        if len(self.settled) >= MAX_SETTLED:
            self.settled.clear()
        self.settled[device_id] = settled


class Notifier:
    """One for each homeserver; used on the reactor thread."""

    def __init__(self, db: Database, feed: Feed, bus: Bus, clock: IReactorTime) -> None:
        self._db = db
        self._feed = feed
        self._clock = clock
        self._watches: dict[str, Watch] = {}
        self._rooms: dict[int, set[Watch]] = {}
        self._unsubscribe: dict[int, Callable[[], None]] = {}
        self._profiles: set[Watch] = set()
        """Those of users who are told of changes of profiles."""
        self._no_profiles: Callable[[], None] | None = None
        self._next_sweep = 0.0
        self.is_stopped = False
        """Whether those who wait are to answer with what they have."""
        self._looked = db.positions.applied
        self.is_alone = isinstance(bus, MemoryBus)
        """Whether all hints are made in this process, so that none is on its way."""
        self._must_look = False
        self._is_looking = False
        bus.on_gap(self._gap)
        feed.on_missed(self._missed)

    async def watch(self, user_id: str, *, profiles: bool = False) -> Watch:
        """The watch of a user, with their current rooms; with `profiles`, woken when a profile
        changes, too."""
        now = self._clock.seconds()
        self._sweep(now)
        watch = self._watches.get(user_id)
        if watch is None:
            watch = self._watches[user_id] = Watch(user_id)
            watch._unsubscribe = self._feed.subscribe(f"user:{user_id}", self._for_user(watch))
        watch.last_used = now
        if profiles:
            self._add_for_profiles(watch)
        while watch.known < watch.heard and not watch.is_dropped:
            heard = watch.heard
            rooms = await self._db.read(_joined, user_id)
            # Another client of the user may have read newer ones meanwhile.
            if heard > watch.known and not watch.is_dropped:
                self._set_rooms(watch, rooms)
                watch.known = heard
        return watch

    @contextmanager
    def peek(self, user_id: str, room_nid: int) -> Iterator[Watch]:
        """A watch of one room that the user need not be in, while the context lasts."""
        watch = Watch(user_id)
        self._set_rooms(watch, (room_nid,))
        try:
            yield watch
        finally:
            watch.is_dropped = True
            self._set_rooms(watch, ())

    def wait(self, watch: Watch, version: int, seconds: float) -> Deferred[None]:
        """Fires at the next hint, or after `seconds`; at once if there was one since `version`."""
        waiter: Deferred[None] = Deferred(watch.waiters.discard)
        if watch.version != version or watch.is_dropped:
            waiter.callback(None)
            return waiter
        watch.waiters.add(waiter)
        call = self._clock.callLater(seconds, self._time_out, watch, waiter)

        def done(result: None) -> None:
            if call.active():
                call.cancel()
            watch.waiters.discard(waiter)
            watch.last_used = self._clock.seconds()
            return result

        return waiter.addBoth(done)

    def wake_user(self, user_id: str) -> None:
        """Something in this process is new for a user."""
        watch = self._watches.get(user_id)
        if watch is not None:
            watch.wake()

    def stop(self) -> None:
        """Have everybody who waits answer; nobody waits any more."""
        self.is_stopped = True
        for watch in self._all():
            watch.wake()
            self._drop(watch)

    def _all(self) -> set[Watch]:
        """All watches, those of one room too."""
        return set(self._watches.values()).union(*self._rooms.values())

    def _add_for_profiles(self, watch: Watch) -> None:
        self._profiles.add(watch)
        if self._no_profiles is None:
            self._no_profiles = self._feed.subscribe(
                profile_changes.CHANNEL, lambda pos: self._wake_for_profiles()
            )

    def _wake_for_profiles(self) -> None:
        for watch in tuple(self._profiles):
            watch.wake()

    @staticmethod
    def _time_out(watch: Watch, waiter: Deferred[None]) -> None:
        if not waiter.called:
            waiter.callback(None)

    def _for_user(self, watch: Watch) -> Callable[[int], None]:
        def heard(pos: int) -> None:
            # It may be about a membership.
            watch.heard += 1
            watch.wake()

        return heard

    def _set_rooms(self, watch: Watch, rooms: Collection[int]) -> None:
        new = frozenset(rooms)
        for room_nid in watch.rooms - new:
            self._leave(watch, room_nid)
        for room_nid in new - watch.rooms:
            watchers = self._rooms.get(room_nid)
            if watchers is None:
                watchers = self._rooms[room_nid] = set()
                self._unsubscribe[room_nid] = self._feed.subscribe(
                    f"room:{room_nid}", self._for_room(watchers)
                )
            watchers.add(watch)
        watch.rooms = new

    @staticmethod
    def _for_room(watchers: set[Watch]) -> Callable[[int], None]:
        def heard(pos: int) -> None:
            for watch in tuple(watchers):
                watch.wake()

        return heard

    def _leave(self, watch: Watch, room_nid: int) -> None:
        watchers = self._rooms.get(room_nid)
        if watchers is None:
            return
        watchers.discard(watch)
        if not watchers:
            del self._rooms[room_nid]
            self._unsubscribe.pop(room_nid)()

    def _drop(self, watch: Watch) -> None:
        watch.is_dropped = True
        if self._watches.get(watch.user_id) is watch:
            del self._watches[watch.user_id]
        self._profiles.discard(watch)
        if not self._profiles and self._no_profiles is not None:
            self._no_profiles()
            self._no_profiles = None
        self._set_rooms(watch, ())
        if watch._unsubscribe is not None:
            watch._unsubscribe()

    def _sweep(self, now: float) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + LINGER / 4
        for watch in list(self._watches.values()):
            if not watch.waiters and watch.last_used < now - LINGER:
                self._drop(watch)

    def _gap(self, channels: Collection[str]) -> None:
        for channel in channels:
            kind, _, name = channel.partition(":")
            if kind == "room" and name.isdigit():
                for watch in tuple(self._rooms.get(int(name), ())):
                    watch.wake()
            elif kind == "user" and name in self._watches:
                self._watches[name].heard += 1
                self._watches[name].wake()
            elif channel == profile_changes.CHANNEL:
                self._wake_for_profiles()

    def _missed(self) -> None:
        """Anything may have happened: ask the database whom it concerns."""
        self._wake_for_profiles()
        self._must_look = True
        if not self._is_looking:
            self._is_looking = True
            Deferred.fromCoroutine(self._look()).addErrback(self._cannot_look)

    async def _look(self) -> None:
        try:
            while self._must_look and not self.is_stopped:
                self._must_look = False
                pos, found = await self._db.read(
                    _news, self._looked, list(self._rooms), list(self._watches)
                )
                self._looked = pos
                for room_nid in found.rooms:
                    for watch in tuple(self._rooms.get(room_nid, ())):
                        watch.wake()
                for user_id in found.users & self._watches.keys():
                    self._watches[user_id].heard += 1
                    self._watches[user_id].wake()
        finally:
            self._is_looking = False

    @staticmethod
    def _cannot_look(failure: Failure) -> None:
        _log.warning("Cannot look for what waiting clients missed", reason=str(failure.value))


def _news(
    txn: Transaction, after: int, room_nids: list[int], user_ids: list[str]
) -> tuple[int, News]:
    return clock.position(txn), news.since(txn, after, room_nids, user_ids)


def _joined(txn: Transaction, user_id: str) -> list[int]:
    return [row.room_nid for row in memberships.of_user(txn, user_id, ["join"])]
