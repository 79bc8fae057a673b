"""Read receipts: the newest of each user, type and thread in a room. Table `receipts`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from storage.transaction import Transaction

PUBLIC, PRIVATE = "m.read", "m.read.private"
UNTHREADED = ""
MAIN = "main"


class Receipt(NamedTuple):
    """A receipt. `thread_id` is `UNTHREADED`, `MAIN` or the event ID of a thread's root."""

    room_nid: int
    user_id: str
    type: str
    thread_id: str
    event_id: str
    event_pos: int
    ts: int
    pos: int


_COLUMNS = ", ".join(Receipt._fields)


def get(
    txn: Transaction, room_nid: int, user_id: str, receipt_type: str, thread_id: str
) -> Receipt | None:
    """One receipt, or None."""
    raw = txn.one(
        f"SELECT {_COLUMNS} FROM receipts WHERE room_nid = ? AND user_id = ? AND type = ?"
        " AND thread_id = ?",
        (room_nid, user_id, receipt_type, thread_id),
    )
    return Receipt(*raw) if raw else None


def put(txn: Transaction, receipts: Iterable[Receipt]) -> None:
    """Set receipts; one for an earlier event than what is there changes nothing."""
    txn.many(
        f"INSERT INTO receipts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (room_nid, user_id, type, thread_id) DO UPDATE SET"
        " event_id = excluded.event_id, event_pos = excluded.event_pos, ts = excluded.ts,"
        " pos = excluded.pos WHERE excluded.event_pos > receipts.event_pos",
        receipts,
    )


def visible(
    txn: Transaction, user_id: str, after: int | None, upto: int, room_nids: Collection[int]
) -> list[Receipt]:
    """Receipts of rooms that the user may see, in the order in which they came.

    Those set in `after < pos <= upto`; None: all. Private ones are the user's own only.
    """
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM receipts WHERE {where} AND pos > ? AND pos <= ?"
        " AND (type = 'm.read' OR user_id = ?) ORDER BY pos",
        [*args, -1 if after is None else after, upto, user_id],
    )
    return [Receipt(*raw) for raw in rows]


def changed_rooms(
    txn: Transaction, user_id: str, after: int, upto: int, room_nids: Collection[int]
) -> set[int]:
    """Those of the rooms with receipts of `after < pos <= upto` that the user may see."""
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT DISTINCT room_nid FROM receipts WHERE {where} AND pos > ? AND pos <= ?"
        " AND (type = 'm.read' OR user_id = ?)",
        [*args, after, upto, user_id],
    )
    return {row[0] for row in rows}


def rooms_of_user(txn: Transaction, user_id: str, after: int, upto: int) -> set[int]:
    """Rooms in which the user set receipts in `after < pos <= upto`."""
    rows = txn.all(
        "SELECT DISTINCT room_nid FROM receipts WHERE user_id = ? AND pos > ? AND pos <= ?",
        (user_id, after, upto),
    )
    return {row[0] for row in rows}


def read_positions(
    txn: Transaction, user_id: str, room_nids: Collection[int]
) -> dict[int, dict[str, int]]:
    """How far the user has read, by room and thread: the further of public and private."""
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        "SELECT room_nid, thread_id, MAX(event_pos) FROM receipts"
        f" WHERE user_id = ? AND {where} GROUP BY room_nid, thread_id",
        [user_id, *args],
    )
    found: dict[int, dict[str, int]] = {}
    for room_nid, thread_id, pos in rows:
        found.setdefault(room_nid, {})[thread_id] = pos
    return found


def any_since(txn: Transaction, user_id: str, ts: int) -> bool:
    """Whether a user read anything since a time, in milliseconds."""
    sql = "SELECT 1 FROM receipts WHERE user_id = ? AND ts > ? LIMIT 1"
    return txn.one(sql, (user_id, ts)) is not None


def delete_all(txn: Transaction, user_id: str) -> None:
    """Remove all receipts of a user."""
    txn.execute("DELETE FROM receipts WHERE user_id = ?", (user_id,))
