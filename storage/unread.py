"""Unread counts: marks of single users, and reading a user's counts of a room.

`homeserver/rooms/unread.py` explains how events are counted when they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from storage.rooms import RoomRow
from storage.transaction import Transaction


class Mark(NamedTuple):
    """What one user is told of one event beyond (or short of) its class."""

    user_id: str
    room_nid: int
    pos: int
    thread_root: str | None
    notify_delta: int
    highlight_delta: int


class Count(NamedTuple):
    """Unread events: those that notify, and those of them that highlight."""

    notify: int
    highlight: int


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
        "INSERT INTO notify_marks (user_id, room_nid, pos, thread_root, notify_delta,"
        " highlight_delta) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        marks,
    )


def counts(
    txn: Transaction,
    room: RoomRow,
    user_id: str,
    since: int,
    read: Mapping[str | None, int],
) -> Counts:
    """The unread counts of a user.

    Parameters:
        since: the position of the user's join; nothing before it counts.
        read: positions of the events that the user's receipts point at: of the unthreaded one
            under None, of the main timeline's under "main", of threads' under their root's ID.
    """
    everything = max(since, read.get(None, 0))
    main = max(everything, read.get("main", 0))
    threads = _threads(txn, room.room_nid, user_id, everything, read)
    notify, highlight = _main(txn, room, user_id, main)
    for pos, root, more, louder in txn.all(
        "SELECT m.pos, m.thread_root, m.notify_delta, m.highlight_delta FROM notify_marks m"
        " JOIN events e ON e.room_nid = m.room_nid AND e.pos = m.pos"
        " WHERE m.user_id = ? AND m.room_nid = ? AND m.pos > ? AND e.redacted_by IS NULL",
        (user_id, room.room_nid, everything),
    ):
        if root is None:
            if pos > main:
                notify += more
                highlight += louder
        elif pos > read.get(root, 0):
            old = threads.get(root, Count(0, 0))
            threads[root] = Count(old.notify + more, old.highlight + louder)
    shown = {root: count for root, count in threads.items() if count.notify > 0}
    return Counts(Count(max(notify, 0), max(highlight, 0)), shown)


def _main(txn: Transaction, room: RoomRow, user_id: str, after: int) -> tuple[int, int]:
    if room.last_pos <= after:
        return 0, 0
    start = txn.one(
        "SELECT notify_total, highlight_total FROM events WHERE room_nid = ? AND pos <= ?"
        " ORDER BY pos DESC LIMIT 1",
        (room.room_nid, after),
    ) or (0, 0)
    notify, highlight = room.notify_total - start[0], room.highlight_total - start[1]
    if not notify:
        return 0, 0
    for (own,) in txn.all(
        "SELECT notify FROM events WHERE room_nid = ? AND sender = ? AND pos > ? AND notify > 0"
        " AND thread_root IS NULL",
        (room.room_nid, user_id, after),
    ):
        notify -= 1
        highlight -= own > 1
    for (gone,) in txn.all(
        "SELECT notify FROM events WHERE room_nid = ? AND pos > ? AND redacted_by IS NOT NULL"
        " AND notify > 0 AND thread_root IS NULL AND sender <> ?",
        (room.room_nid, after, user_id),
    ):
        notify -= 1
        highlight -= gone > 1
    return notify, highlight


def _threads(
    txn: Transaction,
    room_nid: int,
    user_id: str,
    after: int,
    read: Mapping[str | None, int],
) -> dict[str, Count]:
    found: dict[str, Count] = {}
    for root, pos, notify in txn.all(
        "SELECT thread_root, pos, notify FROM events WHERE room_nid = ? AND pos > ?"
        " AND thread_root IS NOT NULL AND notify > 0 AND sender <> ? AND redacted_by IS NULL",
        (room_nid, after, user_id),
    ):
        if pos > read.get(root, 0):
            old = found.get(root, Count(0, 0))
            found[root] = Count(old.notify + 1, old.highlight + (notify > 1))
    return found
