"""Rooms on the public list."""

from __future__ import annotations

from storage.transaction import Transaction


def set_published(txn: Transaction, room_nid: int, is_published: bool) -> None:
    """Put a room on the public list, or take it off."""
    if is_published:
        txn.execute(
            "INSERT INTO published_rooms (room_nid) VALUES (?) ON CONFLICT DO NOTHING",
            (room_nid,),
        )
    else:
        txn.execute("DELETE FROM published_rooms WHERE room_nid = ?", (room_nid,))


def is_published(txn: Transaction, room_nid: int) -> bool:
    """Whether a room is on the public list."""
    return txn.one("SELECT 1 FROM published_rooms WHERE room_nid = ?", (room_nid,)) is not None
