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
5. Many clients that one hint wakes go on a few at a time, with other work between. What is
   committed meanwhile is in the answers of those who were still to go on: a burst is one answer,
   not many.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, TypeVar

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from homeserver.core.filters import Filter
from homeserver.core.push_volume import Volume
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from storage import clock, memberships, news, profile_changes
from storage.bus import Bus, MemoryBus
from storage.database import Database
from storage.feed import Feed
from storage.news import News
from storage.transaction import Transaction
from storage.unread import Count, Counts

T = TypeVar("T")

LINGER = 60.0
"""Seconds that a watch is kept after the last client of its user stopped waiting."""
MAX_SETTLED = 100
"""Devices of one user of which is remembered what they have."""
_LONG = 2.0
"""Longer waits, in seconds, may last up to `_GRAIN` longer."""
_GRAIN = 0.25
AT_ONCE = 50
"""Waiting clients that go on in one turn of the reactor."""

_log = structlog.get_logger(__name__)


class Asked(NamedTuple):
    """The positions of the token that a client comes with; see `SyncRequest`."""

    since: int | None
    ephemeral: int | None


class Tally(NamedTuple):
    """A device's unread counts of a room, and the user's volume of it."""

    counts: Counts
    volume: Volume


def tally(counts: Counts, volume: Volume) -> Tally:
    """A tally; those without threads are shared, so that a device can have many."""
    return Tally(counts, volume) if counts.threads else _shared_tally(counts.main, volume)


@lru_cache(maxsize=2000)
def _shared_tally(main: Count, volume: Volume) -> Tally:
    return Tally(Counts(main, {}), volume)


class Settled:
    """A device has everything up to a token, as long as the version of the watch stays."""

    __slots__ = (
        "answer",
        "came_with",
        "counts",
        "ignored",
        "own_version",
        "plain",
        "rooms",
        "tail",
        "token",
        "until",
        "version",
    )

    def __init__(
        self,
        version: int,
        own_version: int,
        token: SyncToken,
        until: float,
        answer: JsonObject,
    ) -> None:
        self.version = version
        self.own_version = own_version
        """`Watch.own_version`: when it is another one, only the database tells what is new."""
        self.token = token
        self.came_with: Asked | None = None
        """Between this token and `token` nothing was new."""
        self.until = until
        """When to look nevertheless."""
        self.answer = answer
        """What the answer says that tells nothing new."""
        self.rooms: frozenset[int] | None = None
        """The rooms that the user was in at the token; None: that is not known for certain."""
        self.counts: dict[int, Tally] = {}
        """Of some rooms, at the token."""
        self.tail = b""
        """`answer` encoded, without braces; empty: that is still to be done."""
        self.plain: Filter | None = None
        """A filter of which is known that it changes nothing of messages."""
        self.ignored: frozenset[str] = frozenset()
        """Users whom the user ignored at the token."""

    def is_at(self, asked: Asked) -> bool:
        """Whether a client that comes with this has what the device has."""
        token = self.token
        return asked == (token.durable, token.ephemeral) or asked == self.came_with


class Watch:
    """What is watched for one user."""

    __slots__ = (
        "_unsubscribe",
        "heard",
        "is_dropped",
        "known",
        "last_used",
        "own_version",
        "rooms",
        "rooms_at",
        "settled",
        "user_id",
        "version",
        "waiters",
    )

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.version = 0
        self.own_version = 0
        """Rises with every hint about the user, not with those about their rooms."""
        self.rooms: frozenset[int] = frozenset()
        self.rooms_at = 0
        """The position at which these were the rooms."""
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

    def wake(self) -> Collection[Deferred[None]]:
        """Something may be new: those who waited for it."""
        self.version += 1
        if not self.waiters:
            return ()
        waiters, self.waiters = self.waiters, set()
        return waiters

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
        self.heard = 0
        """Rises with every hint about whatever is watched."""
        self.doubts = 0
        """Rises when there may be something new of which no hint said at which position."""
        self._ends = _Ends(clock, self.release)
        self._released: deque[tuple[Deferred[None], Exception | None]] = deque()
        self._is_releasing = False
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
            pos, rooms = await self._db.query(memberships.joined_rooms, user_id)
            # Another client of the user may have read newer ones meanwhile.
            if heard > watch.known and not watch.is_dropped:
                self._set_rooms(watch, rooms)
                watch.rooms_at = pos
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
        waiter: Deferred[None] = Deferred()
        if watch.version != version or watch.is_dropped:
            waiter.callback(None)
            return waiter
        watch.waiters.add(waiter)
        # A method and not a closure, which would take three times the memory while it waits.
        return waiter.addBoth(self._waited, waiter, watch, self._ends.add(waiter, seconds))

    def _waited(self, result: T, waiter: Deferred[None], watch: Watch, due: float) -> T:
        """A wait is over, be it that the client went away."""
        self._ends.discard(waiter, due)
        watch.waiters.discard(waiter)
        watch.last_used = self._clock.seconds()
        return result

    def wake_user(self, user_id: str) -> None:
        """Something in this process is new for a user."""
        watch = self._watches.get(user_id)
        if watch is not None:
            self.release(watch.wake())

    def stop(self) -> None:
        """Have everybody who waits answer; nobody waits any more."""
        self.is_stopped = True
        for watch in self._all():
            self.release(watch.wake())
            self._drop(watch)
        self._release_some()

    def is_watched(self, room_nid: int) -> bool:
        """Whether a client waits for news of a room, or did a moment ago. Safe in any thread."""
        return room_nid in self._rooms

    def release(self, waiters: Iterable[Deferred[None]], error: Exception | None = None) -> None:
        """Have those who wait go on, a few of them at once and the rest by and by, in the order
        in which they were released."""
        self._released.extend((waiter, error) for waiter in waiters)
        if not self._is_releasing:
            self._release_some()

    def _release_some(self) -> None:
        self._is_releasing = True
        done = 0
        while self._released:
            if done == AT_ONCE and not self.is_stopped:
                self._clock.callLater(0, self._release_some)
                return
            done += 1
            waiter, error = self._released.popleft()
            if waiter.called:
                continue
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)
        self._is_releasing = False

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
        self._wake_all(self._profiles)

    def _wake_all(self, watches: Iterable[Watch]) -> None:
        self.heard += 1
        waiters: list[Deferred[None]] = []
        for watch in watches:
            waiters += watch.wake()
        if waiters:
            self.release(waiters)

    def _wake_user(self, watch: Watch) -> None:
        # It may be about a membership.
        watch.heard += 1
        watch.own_version += 1
        self._wake_all((watch,))

    def _for_user(self, watch: Watch) -> Callable[[int], None]:
        return lambda pos: self._wake_user(watch)

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

    def _for_room(self, watchers: set[Watch]) -> Callable[[int], None]:
        return lambda pos: self._wake_all(watchers)

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
        self.doubts += 1
        for channel in channels:
            kind, _, name = channel.partition(":")
            if kind == "room" and name.isdigit():
                self._wake_all(self._rooms.get(int(name), ()))
            elif kind == "user" and name in self._watches:
                self._wake_user(self._watches[name])
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
                self.doubts += 1
                for room_nid in found.rooms:
                    self._wake_all(self._rooms.get(room_nid, ()))
                for user_id in found.users & self._watches.keys():
                    self._wake_user(self._watches[user_id])
        finally:
            self._is_looking = False

    @staticmethod
    def _cannot_look(failure: Failure) -> None:
        _log.warning("Cannot look for what waiting clients missed", reason=str(failure.value))


class _Ends:
    """When waits end. Those that end at about the same time share a timer: a timer for each would
    cost more than all else that waiting does."""

    def __init__(
        self, clock: IReactorTime, release: Callable[[Iterable[Deferred[None]]], None]
    ) -> None:
        self._clock = clock
        self._release = release
        self._groups: dict[float, tuple[IDelayedCall, set[Deferred[None]]]] = {}

    def add(self, waiter: Deferred[None], seconds: float) -> float:
        """Have a waiter released in `seconds`, or a little later; returns when."""
        now = self._clock.seconds()
        due = now + seconds
        if seconds > _LONG:
            due = math.ceil(due / _GRAIN) * _GRAIN
        group = self._groups.get(due)
        if group is None:
            group = self._groups[due] = (self._clock.callLater(due - now, self._over, due), set())
        group[1].add(waiter)
        return due

    def discard(self, waiter: Deferred[None], due: float) -> None:
        """It waits no more."""
        group = self._groups.get(due)
        if group is not None:
            group[1].discard(waiter)
            if not group[1]:
                group[0].cancel()
                del self._groups[due]

    def _over(self, due: float) -> None:
        self._release(self._groups.pop(due)[1])


def _news(
    txn: Transaction, after: int, room_nids: list[int], user_ids: list[str]
) -> tuple[int, News]:
    return clock.position(txn), news.since(txn, after, room_nids, user_ids)
