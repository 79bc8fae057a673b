"""Unread counts in sync."""

from __future__ import annotations

from collections.abc import Collection

from homeserver.core.push_rules import Ruleset
from homeserver.core.push_volume import Volume, volume
from storage import push_rules, receipts, unread
from storage.transaction import Transaction
from storage.unread import Asked, Counts
from storage.user_news import Newest, RoomThen


def messages(
    txn: Transaction, user_id: str, rooms: Collection[RoomThen], ignored: Collection[str] = ()
) -> dict[int, int]:
    """How many messages of each of the rooms are unread, notifying or not (MSC2654): since the
    user's receipt, or join."""
    read = receipts.read_positions(txn, user_id, [room.row.room_nid for room in rooms])
    found = {}
    for room in rooms:
        nid = room.row.room_nid
        marks = [pos for thread, pos in read.get(nid, {}).items() if thread in ("", "main")]
        after = max([room.joined_at or 0, *marks])
        found[nid] = unread.messages(txn, nid, user_id, after, ignored)
    return found


def counts(
    txn: Transaction,
    user_id: str,
    rooms: Collection[RoomThen],
    newest: Newest,
    ignored: Collection[str] = (),
    volumes: dict[int, Volume] | None = None,
) -> dict[int, Counts]:
    """The user's unread counts of each of the rooms (all of which the user is in), without events
    of users whom they ignore. `volumes` is given the user's volume of each."""
    if not rooms:
        return {}
    read: dict[int, dict[str, int]] = {}
    if newest.own_receipt is not None:
        read = receipts.read_positions(txn, user_id, [room.row.room_nid for room in rooms])
    has_rules = newest.push_rules is not None
    ruleset = push_rules.get(txn, user_id) if has_rules else Ruleset(user_id)
    asked = []
    for room in rooms:
        row = room.row
        positions: dict[str | None, int] = {
            thread_id or None: pos for thread_id, pos in read.get(row.room_nid, {}).items()
        }
        loud = volume(ruleset, row.room_id)
        if volumes is not None:
            volumes[row.room_nid] = loud
        asked.append(Asked(row, room.joined_at or 0, positions, loud))
    return unread.counts_of_rooms(txn, user_id, asked, ignored)
