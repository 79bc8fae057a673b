"""Whose presence changed lately, and in which rooms they are: a part of the journal.

An `m.presence` event is encoded once for all who are told of it, and what all in the same rooms are
told is joined once. Who is in a room with somebody is read with the journal, in one statement for
all who changed; whenever anybody's membership may have changed, it is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core.presence import Presence
from homeserver.sync.room_news import FRESH_MS
from homeserver.users.presence import PresenceTracker
from homeserver.web.responses import encode_json
from storage import acquaintances
from storage.transaction import Transaction

MAX_USERS = 2_000
"""Who are known to have changed."""
MAX_PLACES = 50_000
"""Rooms of those who changed that are read at a time."""
_REREAD_MS = 5_000
"""What the store says of somebody is asked for again after so long: not all is announced."""
_GOOD_MS = 20_000
"""It is told for so long."""
_MAX_JOINED = 200

Places = Mapping[str, frozenset[int]]


@dataclass(slots=True)
class _Change:
    serial: int
    """See `storage.ephemeral`."""
    stored: Presence | None
    """None: the store knows nothing of them."""
    read_ms: int
    rooms: frozenset[int] = frozenset()
    """Rooms that somebody watches."""
    data: bytes = b""
    """The event; empty: it is still to be made."""
    made_ms: int = 0


@dataclass(slots=True)
class Reading:
    """What is being read: applied once the rooms are known."""

    revision: int
    changes: dict[str, _Change] | None
    """None: there is too much to know all."""
    new: Set[str] = frozenset()
    """Those of `changes` whose rooms are not known."""
    known: Set[str] = frozenset()
    """All who are known to have changed, with those of `changes`."""


class PresenceNews:
    """See the module. Used on the reactor thread."""

    def __init__(self, presence: PresenceTracker, clock: IReactorTime) -> None:
        self._presence = presence
        self._clock = clock
        self._revision = 0
        self.begins: int | None = None
        """The value of the counter behind which all changes are known; None: nothing is."""
        self._changes: dict[str, _Change] = {}
        self._joined: dict[tuple[int, frozenset[int]], bytes] = {}
        self._joined_ms = 0

    @property
    def heard(self) -> int:
        """Rises with every change of which this process hears."""
        return self._presence.revision

    @property
    def is_fresh(self) -> bool:
        """Whether every change is known of which this process has heard."""
        return self._revision == self._presence.revision or not self._presence.enabled

    def forget(self, upto: int) -> None:
        """Know nothing of before a value of the counter."""
        if self.begins is None:
            return
        self.begins = max(upto, self.begins)
        self._changes = {
            name: change for name, change in self._changes.items() if change.serial > upto
        }
        self._joined.clear()

    def restart(self, at: int | None) -> None:
        """Know nothing of before `at`, or of anything until the next reading."""
        self.begins = at
        self._changes.clear()
        self._joined.clear()

    async def begin(self) -> Reading:
        """Begin to read on; to be called right after the counter was read."""
        revision = self._presence.revision
        told = self._presence.remembered_since(self._revision)
        if self.begins is None or told is None or len(told) + len(self._changes) > MAX_USERS:
            return Reading(revision, None)
        now_ms = self._now_ms()
        old = [
            name
            for name, change in self._changes.items()
            if name not in told and now_ms - change.read_ms > _REREAD_MS
        ]
        serials = {name: self._changes[name].serial for name in old} | told
        stored = await self._presence.stored(serials) if serials else {}
        changes, new = {}, set()
        for name, serial in serials.items():
            change = changes[name] = _Change(serial, stored.get(name), now_ms)
            before = self._changes.get(name)
            if before is None or before.serial != serial:
                new.add(name)
            else:
                change.rooms = before.rooms
        return Reading(revision, changes, new, new | self._changes.keys())

    def take(self, reading: Reading, places: Places | None, now: int) -> None:
        """Know what was read. Parameters: `places`, None if there are too many; `now`, what the
        counter was when it began."""
        self._revision = reading.revision
        if reading.changes is None or places is None:
            self.restart(now)
            # What was remembered after the counter was read, and would be told of.
            self.begins = max(now, self._presence.newest)
            return
        if not reading.changes and not places:
            return
        self._joined.clear()
        self._changes |= reading.changes
        for name, rooms in places.items():
            if name in self._changes:
                self._changes[name].rooms = rooms

    def since(self, ephemeral: int, rooms: frozenset[int]) -> bytes | None:
        """The section of an answer, or nothing if it is empty, for somebody who is in these rooms
        and was told up to there; None if that is not known."""
        if self.begins is None or ephemeral < self.begins or not rooms:
            return None
        now_ms = self._now_ms()
        if not 0 <= now_ms - self._joined_ms <= FRESH_MS or len(self._joined) > _MAX_JOINED:
            self._joined.clear()
            self._joined_ms = now_ms
        key = (ephemeral, rooms)
        known = self._joined.get(key)
        if known is None:
            found = []
            for name, change in self._changes.items():
                if change.serial > ephemeral and not change.rooms.isdisjoint(rooms):
                    if now_ms - change.read_ms > _GOOD_MS:
                        return None
                    if change.stored is not None:
                        found.append(self._event(name, change, change.stored, now_ms))
            known = b',"presence":{"events":[%b]}' % b",".join(found) if found else b""
            self._joined[key] = known
        return known

    def _event(self, name: str, change: _Change, stored: Presence, now_ms: int) -> bytes:
        if not change.data or not 0 <= now_ms - change.made_ms <= FRESH_MS:
            change.data = encode_json(self._presence.event(name, stored))
            change.made_ms = now_ms
        return change.data

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)


def read_places(
    txn: Transaction, users: Collection[str], is_watched: Callable[[int], bool]
) -> Places | None:
    """The watched rooms of users; None: there are too many. Runs in a database thread."""
    found: dict[str, set[int]] = {name: set() for name in users}
    rows = acquaintances.rooms_of(txn, users, MAX_PLACES)
    if len(rows) == MAX_PLACES:
        return None
    for name, nid in rows:
        if is_watched(nid):
            found[name].add(nid)
    return {name: frozenset(nids) for name, nids in found.items()}
