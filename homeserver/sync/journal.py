"""What happened lately, read once for all clients that wait.

1. The journal goes on by reading everything behind its last position (`storage.recent_news`): so
   it has no gaps, whatever hints were lost or came late. Those who ask at the same time share a
   reading.
2. Of each room it knows the newest events that are the same for everybody in the room, as bytes,
   and the last position at which there was anything else. Of users it knows the last position at
   which something concerned them alone.
3. Plain messages of this process it is told of with their positions. Where they come right behind
   what it knows, nothing else can be there, and it goes on with them without reading anything.
4. It begins anew when too much happened since its last position, and forgets what is older than
   `KEPT` seconds. Who was told up to before its beginning is answered from the database.

`homeserver.sync.caught_up` makes answers of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from homeserver.rooms.plain import Messages
from homeserver.rooms.view import RoomView
from homeserver.sync.notifier import Notifier
from homeserver.sync.presence_news import Places, PresenceNews, Reading, read_places
from homeserver.sync.room_news import Line, RoomNews, read_lines
from homeserver.users.presence import PresenceTracker
from homeserver.web.responses import encode_json
from storage import receipts, recent_news, relations, rooms, user_news
from storage.database import Database
from storage.dialect import PORTABLE
from storage.ephemeral import EphemeralStore
from storage.events import EventRow
from storage.receipts import Receipt
from storage.recent_news import RecentNews
from storage.state import StateStore
from storage.transaction import NoStatements, StatementNeeded, Transaction

KEPT = 120.0
"""Seconds."""
MAX_BYTES = 8 << 20
"""Of the events of all rooms."""
MAX_NAMES = 50_000
"""Users and rooms that are kept."""
MAX_OWN = 500
"""Messages of this process that wait to be taken in."""

_NO_DATABASE = NoStatements(PORTABLE)


class _Room(NamedTuple):
    """What was read of a room."""

    room_id: str
    lines: Sequence[Line]
    receipts: Sequence[Receipt]
    other: int
    """See `RoomNews`."""
    parents: frozenset[str]
    """Events to which the lines relate."""


class _Read(NamedTuple):
    now: int
    news: RecentNews | None
    rooms: Mapping[int, _Room]
    typing: Mapping[int, tuple[str, Sequence[str]]]
    """The room's ID, and who types there."""
    places: Places | None = None
    """Of those whose presence changed."""


class Typed(NamedTuple):
    """Who types in a room, and since which value of the counter."""

    serial: int
    room_id: bytes
    """In JSON."""
    users: tuple[str, ...]


class Journal:
    """One for each homeserver; used on the reactor thread."""

    def __init__(
        self,
        db: Database,
        states: StateStore,
        notifier: Notifier,
        ephemeral: EphemeralStore,
        presence: PresenceTracker,
        clock: IReactorTime,
        server_name: str,
    ) -> None:
        self.presence = PresenceNews(presence, clock)
        self._reader = f"@:{server_name}"
        """Stands for everybody of this server."""
        self._db = db
        self._states = states
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._clock = clock
        self.begins = 0
        """The position behind which everything is known."""
        self.now = 0
        """The position up to which everything is known; 0: nothing is."""
        self.ephemeral = 0
        """The same of typing: see `storage.ephemeral`."""
        self.ephemeral_begins = 0
        self.users: dict[str, int] = {}
        """When something last concerned a user alone."""
        self.rooms: dict[int, RoomNews] = {}
        self.device_rooms: dict[int, int] = {}
        """When devices of a member last changed."""
        self.typing: dict[int, Typed] = {}
        self.last_device = 0
        self.readings = 0
        """How often the database was asked for what is new."""
        self._own: dict[int, Sequence[Messages]] = {}
        """Messages of this process, by the position before them."""
        self._own_count = 0
        self._heard = -1
        self._doubts = -1
        self._marks: deque[tuple[float, int, int]] = deque()
        self._waiters: list[Deferred[None]] = []
        self._is_reading = False
        self._is_anew = False
        """Whether somebody needs what other processes did, hinted at or not."""
        self._sharing: list[Deferred[None]] = []
        """Those who wait for the reading that has begun."""
        self._reading_for: tuple[int, int, int] | None = None
        """What was known to have happened when it began; None: it has ended."""

    @property
    def is_fresh(self) -> bool:
        """Whether it has everything of which this process knows that it happened."""
        return (
            self.now >= self._db.positions.known
            and self._heard == self._notifier.heard
            and self.presence.is_fresh
            and self.now > 0
        )

    def begin(self, now: int, ephemeral: int) -> None:
        """Begin at a position, unless it has begun."""
        if not self.now:
            self._restart(now, ephemeral)

    def written(self, base: int, messages: Sequence[Messages]) -> None:
        """For `Appender.on_messages`."""
        if not self.now or base < self.now:
            return
        self._own_count += sum(len(room.rows) for room in messages)
        if self._own_count > MAX_OWN:
            self._drop_own()
            return
        self._own[base] = messages

    def _drop_own(self) -> None:
        self._own.clear()
        self._own_count = 0

    def refresh(self, *, anew: bool = False) -> Deferred[None]:
        """Read on; fires when everything is known of which this process knows that it happened.
        Fails as the database does.

        Parameters: `anew`, do not share a reading that has begun: what any process did until now
        is to be known.
        """
        waiter: Deferred[None] = Deferred()
        known = self._known()
        self._is_anew = self._is_anew or anew
        if self._is_reading and not anew and self._reading_for == known:
            self._sharing.append(waiter)
            return waiter
        self._waiters.append(waiter)
        if not self._is_reading:
            self._is_reading = True
            Deferred.fromCoroutine(self._run())
        return waiter

    def _known(self) -> tuple[int, int, int]:
        """What this process knows to have happened."""
        return self._db.positions.known, self._notifier.heard, self.presence.heard

    async def _run(self) -> None:
        try:
            while self._waiters:
                self._sharing, self._waiters = self._waiters, []
                self._reading_for = self._known()
                problem: Exception | None = None
                try:
                    await self._read_on()
                except Exception as error:
                    problem = error
                # Those who are let go on may ask again at once.
                self._reading_for = None
                waiters, self._sharing = self._sharing, []
                self._notifier.release(waiters, problem)
        finally:
            self._is_reading = False

    async def _read_on(self) -> None:
        heard, doubts, anew = self._notifier.heard, self._notifier.doubts, self._is_anew
        self._is_anew = False
        ephemeral = await self._ephemeral.position()
        present = await self.presence.begin()
        self._take_own()
        is_told = not anew and doubts == self._doubts and ephemeral == self.ephemeral
        is_told = is_told and not present.changes
        if is_told and self.now and self.now >= self._db.positions.known:
            # All that hints spoke of were these messages.
            self.presence.take(present, {}, ephemeral)
            self._heard = heard
            return
        before = self.now
        self.readings += 1
        typed: Mapping[str, list[str]] = {}
        if before and ephemeral != self.ephemeral:
            typed = await self._ephemeral.typing_since(self.ephemeral)
        watched = self._notifier.is_watched
        read = await self._db.read(
            _read, self._states, self._reader, watched, before, typed, present
        )
        if before != self.now:
            return  # Nobody else moves it; but it may have begun meanwhile.
        self._heard, self._doubts = heard, doubts
        if not before or read.news is None:
            self._restart(read.now, ephemeral)
        else:
            self.presence.take(present, read.places, ephemeral)
            self._take(read, read.news, ephemeral)
        self._own = {base: told for base, told in self._own.items() if base >= self.now}
        self._own_count = sum(len(room.rows) for told in self._own.values() for room in told)

    def _take_own(self) -> None:
        """Go on with messages of this process that are right behind what is known."""
        while (messages := self._own.get(self.now)) is not None:
            try:
                found = [(room, self._own_lines(room)) for room in messages]
            except StatementNeeded:
                return
            del self._own[self.now]
            self._own_count -= sum(len(room.rows) for room in messages)
            for (row, rows), lines in found:
                room = self._open(row.room_nid)
                room.last = rows[-1].pos or 0
                if lines is None:
                    room.other = room.last
                elif lines:
                    room.room_id = encode_json(row.room_id)
                    room.add(lines)
                else:
                    room.empty()
                    room.since = room.last
                self.now = max(self.now, room.last)
            self._forget()

    def _own_lines(self, messages: Messages) -> list[Line] | None:
        """As `_read_rooms`: none, if nobody watches the room; None: not the same for all.

        Nothing relates to an event that has just been made. Raises StatementNeeded.
        """
        row, rows = messages
        if not self._notifier.is_watched(row.room_nid):
            return []
        view = RoomView(_NO_DATABASE, self._states, row, self._reader, joined_at=0)
        return read_lines(view, rows, frozenset())

    def _open(self, nid: int) -> RoomNews:
        room = self.rooms.pop(nid, None)
        if room is None:
            room = RoomNews(self.begins)
        self.rooms[nid] = room  # The longest quiet come first.
        return room

    def _restart(self, now: int, ephemeral: int) -> None:
        self.begins = self.now = now
        self.ephemeral_begins = self.ephemeral = ephemeral
        for known in (self.users, self.rooms, self.device_rooms, self.typing):
            known.clear()
        self.presence.restart(None)
        self._marks.clear()

    def _take(self, read: _Read, news: RecentNews, ephemeral: int) -> None:
        for user_id, pos in news.users.items():
            self.users[user_id] = pos
        for nid, pos in news.device_rooms.items():
            self.device_rooms[nid] = self.last_device = max(pos, self.last_device)
        for nid in news.events.keys() | news.receipts.keys() | news.other.keys():
            room = self._open(nid)
            shared = max(news.events.get(nid, 0), news.receipts.get(nid, 0))
            room.last = max(shared, news.other.get(nid, 0))
            room.other = max(room.other, news.other.get(nid, 0))
            found = read.rooms.get(nid)
            if found is not None:
                self._extend(room, found)
            elif shared:
                room.empty()
                room.since = shared
        for nid, (room_id, users) in read.typing.items():
            self.typing[nid] = Typed(ephemeral, encode_json(room_id), tuple(users))
        self.now, self.ephemeral = read.now, ephemeral
        self._forget()

    @staticmethod
    def _extend(room: RoomNews, found: _Room) -> None:
        room.room_id = encode_json(found.room_id)
        room.other = max(room.other, found.other)
        if found.parents:
            # What relates to an event is told with it: to those who were not told of it before.
            for line in room.lines:
                if line.event_id in found.parents:
                    room.other = max(room.other, line.pos)
        room.add(found.lines, found.receipts)

    def _forget(self) -> None:
        now = self._clock.seconds()
        if not self._marks or now - self._marks[-1][0] >= KEPT / 8:
            self._marks.append((now, self.now, self.ephemeral))
        names = len(self.users) + len(self.rooms) + len(self.device_rooms) + len(self.typing)
        upto = None
        while self._marks and (self._marks[0][0] < now - KEPT or names > MAX_NAMES):
            upto = self._marks.popleft()
            if names > MAX_NAMES and not self._marks:
                self._restart(self.now, self.ephemeral)
                return
        if upto is not None:
            self._forget_upto(upto[1], upto[2])
        self._shrink()

    def _forget_upto(self, pos: int, ephemeral: int) -> None:
        self.begins, self.ephemeral_begins = pos, ephemeral
        self.presence.forget(ephemeral)
        self.users = {name: at for name, at in self.users.items() if at > pos}
        self.rooms = {nid: room for nid, room in self.rooms.items() if room.last > pos}
        for room in self.rooms.values():
            room.forget(pos)
        self.device_rooms = {nid: at for nid, at in self.device_rooms.items() if at > pos}
        self.typing = {nid: typed for nid, typed in self.typing.items() if typed.serial > ephemeral}

    def _shrink(self) -> None:
        size = sum(room.size for room in self.rooms.values()) if len(self.rooms) < 500 else None
        if size is None or size > MAX_BYTES:
            for room in list(self.rooms.values())[: len(self.rooms) // 2 + 1]:
                room.empty()


def _read(
    txn: Transaction,
    states: StateStore,
    reader: str,
    is_watched: Callable[[int], bool],
    after: int,
    typed: Mapping[str, Sequence[str]],
    present: Reading,
) -> _Read:
    """What is new behind a position; 0: nothing but the clock. Runs in a database thread."""
    now, news = recent_news.since(txn, after)
    if not after or news is None:
        return _Read(now, None, {}, {})
    typing = {}
    for room_id, users in typed.items():
        nid = rooms.nid(txn, room_id)
        if nid is not None:
            typing[nid] = (room_id, users)
    found = _read_rooms(txn, states, reader, is_watched, after, news)
    # Any membership may have changed where there is something else.
    moved = present.known if news.other else present.new
    return _Read(now, news, found, typing, read_places(txn, moved, is_watched))


def _read_rooms(
    txn: Transaction,
    states: StateStore,
    reader: str,
    is_watched: Callable[[int], bool],
    after: int,
    news: RecentNews,
) -> dict[int, _Room]:
    """The rooms for which somebody waits and in which nothing but events and receipts is new."""
    nids = [
        nid
        for nid in news.events.keys() | news.receipts.keys()
        if nid not in news.other and is_watched(nid)
    ]
    by_room: dict[int, list[EventRow]] = {nid: [] for nid in nids}
    for row in recent_news.events_of(txn, [nid for nid in nids if nid in news.events], after):
        by_room[row.room_nid].append(row)
    read: dict[int, list[Receipt]] = {nid: [] for nid in nids}
    if wanted := [nid for nid in nids if nid in news.receipts]:
        for receipt in receipts.visible(txn, "", after, news.now, wanted):
            read[receipt.room_nid].append(receipt)
    ids = [row.event_id for rows in by_room.values() for row in rows]
    related = relations.with_children(txn, ids)
    found = {}
    for nid, then in user_news.rooms_since(txn, "", by_room, after).items():
        rows = by_room[nid]
        lines: list[Line] | None = None
        is_broken = then.last_break is not None and then.last_break > after
        if then.old_root is not None and then.old_root == then.row.state_root and not is_broken:
            lines = read_lines(RoomView(txn, states, then.row, reader, joined_at=0), rows, related)
        other = 0 if lines is not None else news.now
        parents = frozenset(row.relates_to for row in rows if row.relates_to is not None)
        found[nid] = _Room(then.row.room_id, lines or [], read[nid], other, parents)
    return found
