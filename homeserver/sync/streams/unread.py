"""Unread counts in sync."""

from __future__ import annotations

from collections.abc import Collection

from homeserver.core.push_volume import volume
from storage import acquaintances, push_rules, receipts, unread
from storage.rooms import RoomRow
from storage.transaction import Transaction
from storage.unread import Counts


def counts(
    txn: Transaction, user_id: str, rooms: Collection[RoomRow], ignored: Collection[str] = ()
) -> dict[int, Counts]:
    """The user's unread counts of each of the rooms (all of which the user is in), without events
    of users whom they ignore."""
    if not rooms:
        return {}
    room_nids = [room.room_nid for room in rooms]
    joined = acquaintances.joined_at(txn, user_id, room_nids)
    read = receipts.read_positions(txn, user_id, room_nids)
    ruleset = push_rules.get(txn, user_id)
    found = {}
    for room in rooms:
        positions: dict[str | None, int] = {
            thread_id or None: pos for thread_id, pos in read.get(room.room_nid, {}).items()
        }
        found[room.room_nid] = unread.counts(
            txn,
            room,
            user_id,
            joined.get(room.room_nid, 0),
            positions,
            volume(ruleset, room.room_id),
            ignored,
        )
    return found
