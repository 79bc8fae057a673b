"""Rooms that users of this server cannot enter. Table `blocked_rooms`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.point_query import point_query
from storage.transaction import Transaction


def block(txn: Transaction, room_id: str, user_id: str, now: int) -> None:
    """Block a room, known or not; who blocked it first stays noted. `now` in milliseconds."""
    txn.execute(
        "INSERT INTO blocked_rooms (room_id, blocked_by, blocked_ts) VALUES (?, ?, ?)"
        " ON CONFLICT (room_id) DO NOTHING",
        (room_id, user_id, now),
    )


def unblock(txn: Transaction, room_id: str) -> None:
    """Block a room no more."""
    txn.execute("DELETE FROM blocked_rooms WHERE room_id = ?", (room_id,))


def blocked_by(txn: Transaction, room_id: str) -> str | None:
    """Who blocked a room; None if it is not blocked."""
    found: str | None = txn.value(
        "SELECT blocked_by FROM blocked_rooms WHERE room_id = ?", (room_id,)
    )
    return found


@point_query(
    "SELECT 1 FROM blocked_rooms WHERE room_id = ? UNION ALL"
    " SELECT 1 FROM room_tasks WHERE room_id = ? AND is_closing LIMIT 1",
    bool,
)
def is_closed(room_id: str) -> Sequence[Any]:
    """Whether a room is blocked, or being removed."""
    return (room_id, room_id)
