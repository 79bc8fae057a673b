"""Events that are delivered to everybody while they are sticky (MSC4354). Table `sticky_events`.

Rows of events that are not sticky any more may be there for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from storage.transaction import Transaction


class StickyRow(NamedTuple):
    """See `storage/schema/0023_proposals.sql`; times in milliseconds."""

    event_nid: int
    room_nid: int
    sender: str
    pos: int | None
    expires_ts: int


_COLUMNS = ", ".join(StickyRow._fields)


def add(txn: Transaction, rows: Iterable[StickyRow]) -> None:
    """Note events."""
    txn.many(
        f"INSERT INTO sticky_events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (event_nid) DO UPDATE SET pos = excluded.pos",
        rows,
    )


def remove(txn: Transaction, event_nid: int) -> None:
    """An event is not sticky any more."""
    txn.execute("DELETE FROM sticky_events WHERE event_nid = ?", (event_nid,))


def delete_expired(txn: Transaction, now_ms: int) -> int:
    """Forget those that are not sticky any more; how many."""
    return txn.execute("DELETE FROM sticky_events WHERE expires_ts <= ?", (now_ms,))


def count_by_sender(txn: Transaction, room_nid: int, senders: Collection[str]) -> dict[str, int]:
    """How many sticky events of a room each of these users has."""
    where, args = txn.any_of("sender", senders)
    rows = txn.all(
        f"SELECT sender, COUNT(*) FROM sticky_events WHERE room_nid = ? AND {where}"
        " GROUP BY sender",
        [room_nid, *args],
    )
    return {row[0]: row[1] for row in rows}


def held(txn: Transaction, room_nid: int, senders: Collection[str], now_ms: int) -> list[StickyRow]:
    """Soft-failed ones of these users in a room."""
    where, args = txn.any_of("sender", senders)
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM sticky_events WHERE room_nid = ? AND pos IS NULL"
        f" AND expires_ts > ? AND {where} ORDER BY event_nid",
        [room_nid, now_ms, *args],
    )
    return [StickyRow(*row) for row in rows]


def of_user(
    txn: Transaction, user_id: str, after: int, upto: int, now_ms: int, limit: int
) -> list[StickyRow]:
    """Those of `after < pos <= upto` in the rooms that a user is in, the oldest first."""
    names = ", ".join(f"s.{name}" for name in StickyRow._fields)
    rows = txn.all(
        f"SELECT {names} FROM sticky_events s JOIN memberships m ON m.room_nid = s.room_nid"
        " AND m.user_id = ? AND m.membership = 'join'"
        " WHERE s.pos > ? AND s.pos <= ? AND s.expires_ts > ? ORDER BY s.pos LIMIT ?",
        (user_id, after, upto, now_ms, limit),
    )
    return [StickyRow(*row) for row in rows]


def of_rooms(
    txn: Transaction, room_nids: Collection[int], upto: int, now_ms: int
) -> list[StickyRow]:
    """Those of `pos <= upto` in rooms, the oldest first."""
    if not room_nids:
        return []
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM sticky_events WHERE {where} AND pos <= ? AND expires_ts > ?"
        " ORDER BY pos",
        [*args, upto, now_ms],
    )
    return [StickyRow(*row) for row in rows]
