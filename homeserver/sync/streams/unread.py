"""Unread counts in sync."""

from __future__ import annotations

from collections.abc import Collection

from storage import memberships, receipts, unread
from storage.rooms import RoomRow
from storage.transaction import Transaction
from storage.unread import Counts


def counts(txn: Transaction, user_id: str, rooms: Collection[RoomRow]) -> dict[int, Counts]:
    """The user's unread counts of each of the rooms (all of which the user is in)."""
    if not rooms:
        return {}
    read = receipts.read_positions(txn, user_id, [room.room_nid for room in rooms])
    found = {}
    for room in rooms:
        since, _ = memberships.last_stay(txn, room.room_nid, user_id)
        positions: dict[str | None, int] = {
            thread_id or None: pos for thread_id, pos in read.get(room.room_nid, {}).items()
        }
        found[room.room_nid] = unread.counts(txn, room, user_id, since or 0, positions)
    return found
