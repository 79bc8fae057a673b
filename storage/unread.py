"""Unread counts: marks of single users, and reading a user's counts of a room.

`homeserver/rooms/unread.py` explains how events are counted when they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from homeserver.core.push_volume import Volume, heard
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.transaction import Transaction

MAX_LOOKED_AT = 10_000
"""Of more unread events in threads, or of more marks, only the newest are counted."""
_AT_ONCE = 250
"""Rooms."""


class Mark(NamedTuple):
    """What one event does to one user, where that is not what its class says."""

    user_id: str
    room_nid: int
    pos: int
    thread_root: str | None
    notify: int
    highlight: int


class Count(NamedTuple):
    """Unread events: those that notify, and those of them that highlight."""

    notify: int
    highlight: int


NOTHING = Count(0, 0)


class Counts(NamedTuple):
    """A user's unread counts of a room: outside threads, and in each thread that has any."""

    main: Count
    threads: dict[str, Count]

    @property
    def total(self) -> Count:
        """Main timeline and threads together."""
        all_counts = [self.main, *self.threads.values()]
        return Count(sum(c.notify for c in all_counts), sum(c.highlight for c in all_counts))


def add_marks(txn: Transaction, marks: Iterable[Mark]) -> None:
    """Add marks."""
    txn.many(
        "INSERT INTO notify_marks (user_id, room_nid, pos, thread_root, notify, highlight)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        marks,
    )


def delete_marks(txn: Transaction, user_id: str) -> None:
    """Remove all marks of a user."""
    txn.execute("DELETE FROM notify_marks WHERE user_id = ?", (user_id,))


def counts(
    txn: Transaction,
    room: RoomRow,
    user_id: str,
    since: int,
    read: Mapping[str | None, int],
    volume: Volume = Volume.EVERYTHING,
    ignored: Collection[str] = (),
) -> Counts:
    """The unread counts of a user.

    What users send themselves marks what comes before it as read, in the main timeline or in its
    thread (client-server API, "Marking notifications as read").

    Parameters:
        since: the position of the user's join; nothing before it counts.
        read: positions of the events that the user's receipts point at: of the unthreaded one
            under None, of the main timeline's under "main", of threads' under their root's ID.
        volume: the user's volume of the room.
        ignored: users whose events do not count.
    """
    asked = Asked(room, since, read, volume)
    return counts_of_rooms(txn, user_id, [asked], ignored)[room.room_nid]


class Asked(NamedTuple):
    """A room whose unread counts are asked for: see `counts`."""

    room: RoomRow
    since: int
    read: Mapping[str | None, int]
    volume: Volume

    @property
    def everything(self) -> int:
        """Up to where all is read, in threads too."""
        return max(self.since, self.read.get(None, 0))

    @property
    def main(self) -> int:
        """Up to where the main timeline is read."""
        return max(self.everything, self.read.get("main", 0))


def counts_of_rooms(
    txn: Transaction, user_id: str, asked: Collection[Asked], ignored: Collection[str] = ()
) -> dict[int, Counts]:
    """`counts` of several rooms, by number."""
    found = {one.room.room_nid: Counts(NOTHING, {}) for one in asked}
    left = [
        one
        for one in asked
        if one.volume is not Volume.NOTHING and one.room.last_pos > one.everything
    ]
    for first in range(0, len(left), _AT_ONCE):
        part = left[first : first + _AT_ONCE]
        starts = _starts(txn, user_id, part)
        for one in part:
            nid = one.room.room_nid
            found[nid] = _counts(txn, user_id, one, starts[nid], ignored)
    return found


def _counts(
    txn: Transaction, user_id: str, asked: Asked, start: _Start, ignored: Collection[str]
) -> Counts:
    everything, read, volume = asked.everything, asked.read, asked.volume
    counter = _Counter(txn, asked.room, user_id, volume, ignored)
    notify, highlight = counter.main(start)
    read_threads = {root: pos for root, pos in read.items() if root and root != "main"}
    threads = counter.threads(everything, read_threads) if start.has_threads else {}
    marks = counter.marks(everything) if start.has_marks else []
    for pos, root, event_class, told, loudly in marks:
        before = _count(heard(volume, event_class))
        if root is None:
            if pos > start.pos:
                notify += told - before.notify
                highlight += loudly - before.highlight
        elif pos > read_threads.get(root, 0):
            old = threads.get(root, NOTHING)
            threads[root] = Count(
                old.notify + told - before.notify, old.highlight + loudly - before.highlight
            )
    shown = {root: count for root, count in threads.items() if count.notify > 0}
    return Counts(Count(max(notify, 0), max(highlight, 0)), shown)


def _count(event_class: int) -> Count:
    return Count(int(event_class > 0), int(event_class > 1))


class _Start(NamedTuple):
    """Where the unread part of a room begins for a user, and what is in it."""

    pos: int
    """The main timeline is read up to here: by receipts, or because the user sent something."""
    notify_total: int | None
    """The room's running counts here; None: nothing is read."""
    highlight_total: int | None
    has_redacted: bool
    has_threads: bool
    has_marks: bool


def _total(column: str, least: int) -> str:
    """A running count where the unread part begins; `least`, the class that it counts from.

    Where the events up to there were purged, it is what the count was before the first that is
    left.
    """
    return (
        f"COALESCE((SELECT {column} FROM events e WHERE e.room_nid = own.room_nid AND e.pos > 0"
        " AND e.pos <= own.pos ORDER BY e.pos DESC LIMIT 1),"
        f" (SELECT {column} - CASE WHEN thread_root IS NULL AND notify >= {least} THEN 1 ELSE 0 END"
        " FROM events e WHERE e.room_nid = own.room_nid AND e.pos > 0 ORDER BY e.pos LIMIT 1))"
    )


def _starts(txn: Transaction, user_id: str, asked: Collection[Asked]) -> dict[int, _Start]:
    """Where the unread part of each room begins.

    One statement, because in most rooms there is nothing more to ask.
    """
    numbers, args = txn.dialect.rows_of(
        ("bigint",) * 3, [(one.room.room_nid, one.everything, one.main) for one in asked]
    )
    rows = txn.all(
        f"WITH asked (room_nid, everything, main) AS ({numbers}),"
        " own AS MATERIALIZED (SELECT a.room_nid, a.everything,"
        " COALESCE((SELECT e.pos FROM events e"
        " WHERE e.room_nid = a.room_nid AND e.sender = ? AND e.pos > a.main AND e.notify > 0"
        " AND e.thread_root IS NULL ORDER BY e.pos DESC LIMIT 1), a.main) AS pos FROM asked a)"
        f" SELECT own.room_nid, own.pos,"
        f" {_total('notify_total', 1)}, {_total('highlight_total', 2)},"
        " EXISTS (SELECT 1 FROM events e WHERE e.room_nid = own.room_nid AND e.pos > own.pos"
        " AND e.redacted_by IS NOT NULL),"
        " EXISTS (SELECT 1 FROM events e WHERE e.room_nid = own.room_nid"
        # Not by the index of whose condition this is one (+ 0), but by that of threads.
        " AND e.pos > own.everything AND e.thread_root IS NOT NULL AND e.notify + 0 > 0),"
        " EXISTS (SELECT 1 FROM notify_marks k WHERE k.user_id = ? AND k.room_nid = own.room_nid"
        " AND k.pos > own.everything) FROM own",
        [*args, user_id, user_id],
    )
    return {raw[0]: _Start(*raw[1:]) for raw in rows}


class _Counter:
    """Counts the events of one room for one user, by their class."""

    def __init__(
        self,
        txn: Transaction,
        room: RoomRow,
        user_id: str,
        volume: Volume,
        ignored: Collection[str],
    ) -> None:
        self._txn = txn
        self._room = room
        self._user_id = user_id
        self._volume = volume
        # Which events count now, of those that were counted when they were written.
        self._by_ignored, self._ignored = txn.any_of("sender", ignored)
        self._counts = f"redacted_by IS NULL AND NOT ({self._by_ignored})"

    def main(self, start: _Start) -> Count:
        """Unread events outside threads."""
        room = self._room
        if room.last_pos <= start.pos:
            return NOTHING
        loud = room.highlight_total - (start.highlight_total or 0)
        quiet = room.notify_total - (start.notify_total or 0) - loud
        if quiet or loud:
            for event_class, gone in self._gone(start):
                if event_class > 1:
                    loud -= gone
                else:
                    quiet -= gone
        return Count(loud if self._volume is Volume.HIGHLIGHTS else quiet + loud, loud)

    def _gone(self, start: _Start) -> list[tuple[int, int]]:
        """How many unread events outside threads do not count any more, by class."""
        # Two statements: each has its index.
        ways: list[tuple[str, list[object]]] = []
        if start.has_redacted:
            ways.append(("redacted_by IS NOT NULL", []))
        if self._ignored:
            ways.append((f"redacted_by IS NULL AND {self._by_ignored}", self._ignored))
        found: list[tuple[int, int]] = []
        for condition, args in ways:
            found += self._txn.all(
                "SELECT notify, COUNT(*) FROM events WHERE room_nid = ? AND pos > ?"
                f" AND {condition} AND notify > 0 AND thread_root IS NULL GROUP BY notify",
                (self._room.room_nid, start.pos, *args),
            )
        return found

    def threads(self, after: int, read: dict[str, int]) -> dict[str, Count]:
        """Events in threads after a position; `read` is raised to the user's last in each."""
        for root, pos in self._txn.all(
            "SELECT thread_root, MAX(pos) FROM events WHERE room_nid = ? AND sender = ?"
            " AND pos > ? AND notify > 0 AND thread_root IS NOT NULL GROUP BY thread_root",
            (self._room.room_nid, self._user_id, after),
        ):
            read[root] = max(read.get(root, 0), pos)
        found: dict[str, Count] = {}
        for root, pos, event_class in self._txn.all(
            "SELECT thread_root, pos, notify FROM events WHERE room_nid = ? AND pos > ?"
            f" AND thread_root IS NOT NULL AND notify > 0 AND {self._counts}"
            " ORDER BY pos DESC LIMIT ?",
            (self._room.room_nid, after, *self._ignored, MAX_LOOKED_AT),
        ):
            one = _count(heard(self._volume, event_class))
            if one.notify and pos > read.get(root, 0):
                old = found.get(root, NOTHING)
                found[root] = Count(old.notify + 1, old.highlight + one.highlight)
        return found

    def marks(self, after: int) -> list[tuple[int, str | None, int, int, int]]:
        """Position, thread, the event's class, and what the user is told, for each mark."""
        return self._txn.all(
            "SELECT m.pos, m.thread_root, e.notify, m.notify, m.highlight FROM notify_marks m"
            " JOIN events e ON e.room_nid = m.room_nid AND e.pos = m.pos"
            f" WHERE m.user_id = ? AND m.room_nid = ? AND m.pos > ? AND {self._counts}"
            " ORDER BY m.pos DESC LIMIT ?",
            (self._user_id, self._room.room_nid, after, *self._ignored, MAX_LOOKED_AT),
        )


_STATE = ("m.room.name", "m.room.topic", "m.room.avatar", "m.room.tombstone")


def messages(
    txn: Transaction, room_nid: int, user_id: str, after: int, ignored: Collection[str] = ()
) -> int:
    """Messages of others behind a position, and changes that look like messages (MSC2654); of
    more than `MAX_LOOKED_AT` these many."""
    by_ignored, names = txn.any_of("sender", ignored)
    # The stored text has no spaces between tokens, and quotes within strings are escaped.
    found: int = txn.value(
        "SELECT COUNT(*) FROM (SELECT 1 FROM events WHERE room_nid = ? AND pos > ? AND sender <> ?"
        f" AND redacted_by IS NULL AND NOT ({by_ignored})"
        " AND (rel_type IS NULL OR rel_type <> 'm.replace')"
        f" AND ((state_key IS NOT NULL AND type IN ({', '.join('?' * len(_STATE))}))"
        " OR type = 'm.room.encrypted' OR (json LIKE ? AND json NOT LIKE ?))"
        " AND NOT (type = 'm.room.message' AND state_key IS NULL AND json LIKE ?) LIMIT ?) found",
        (
            *(room_nid, after, user_id),
            *names,
            *_STATE,
            *('%"body":"%', '%"body":""%', '%"msgtype":"m.notice"%'),
            MAX_LOOKED_AT,
        ),
    )
    return found


def rooms_of(txn: Transaction, user_id: str) -> list[tuple[int, int, int, str]]:
    """The rooms that a user is in: number, position of the newest event, position of the user's
    newest receipt (0: none), ID."""
    rows: list[tuple[int, int, int, str]] = txn.all(
        "SELECT m.room_nid, r.last_pos, COALESCE((SELECT MAX(c.pos) FROM receipts c"
        " WHERE c.room_nid = m.room_nid AND c.user_id = m.user_id), 0), r.room_id"
        " FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid"
        " WHERE m.user_id = ? AND m.membership = 'join'",
        (user_id,),
    )
    return rows


def notifying_invites(txn: Transaction, user_id: str) -> int:
    """How many invites of a user notified them, or came from servers that alone know the room."""
    return int(
        txn.value(
            "SELECT COUNT(*) FROM memberships m LEFT JOIN rooms r ON r.room_nid = m.room_nid"
            " WHERE m.user_id = ? AND m.membership = 'invite' AND m.is_local"
            " AND (r.state_root IS NULL OR EXISTS (SELECT 1 FROM notify_marks k"
            " WHERE k.user_id = m.user_id AND k.room_nid = m.room_nid AND k.pos = m.pos"
            " AND k.notify > 0))",
            (user_id,),
        )
    )


def is_read(txn: Transaction, event: EventRow, user_id: str) -> bool:
    """Whether a user has read an event: by a receipt, or by sending something after it."""
    thread = event.thread_root
    row = txn.one(
        "SELECT (SELECT MAX(event_pos) FROM receipts WHERE room_nid = ? AND user_id = ?"
        " AND thread_id IN ('', ?)), EXISTS (SELECT 1 FROM events WHERE room_nid = ?"
        " AND sender = ? AND pos > ? AND notify > 0 AND COALESCE(thread_root, '') = ?)",
        (
            *(event.room_nid, user_id, thread or "main"),
            *(event.room_nid, user_id, event.pos, thread or ""),
        ),
    )
    assert row is not None, "a SELECT without FROM has one row"
    return (row[0] or 0) >= (event.pos or 0) or bool(row[1])
