"""Looking for messages that are too old (`homeserver.rooms.retention`); owns no table."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.events import EventRow
from storage.rooms import RoomRow
from storage.transaction import Transaction


def is_expired(row: EventRow, room: RoomRow, begins: int | None) -> bool:
    """Whether an event of a room is too old to be shown. `begins`: a time of milliseconds before
    which messages are; None: none is."""
    return (
        begins is not None
        and row.state_key is None
        and row.origin_server_ts < begins
        and row.event_id not in room.extremities
    )


class Kept(NamedTuple):
    event_id: str
    depth: int


def rooms(txn: Transaction, after: int, limit: int) -> list[int]:
    """Numbers of rooms that this server knows the state of, behind one, in order."""
    rows = txn.all(
        "SELECT room_nid FROM rooms WHERE room_nid > ? AND state_root IS NOT NULL"
        " ORDER BY room_nid LIMIT ?",
        (after, limit),
    )
    return [row[0] for row in rows]


def first_kept(
    txn: Transaction, room_nid: int, begins: int, last: int, heads: Collection[str]
) -> Kept | None:
    """The least deep event of a room's history that stays: one from between two times (of
    milliseconds), or else a head."""
    row = txn.one(
        "SELECT event_id, depth FROM events WHERE room_nid = ? AND pos IS NOT NULL"
        " AND origin_server_ts >= ? AND origin_server_ts <= ? ORDER BY depth, pos LIMIT 1",
        (room_nid, begins, last),
    )
    if row is None:
        where, args = txn.any_of("event_id", heads)
        row = txn.one(
            f"SELECT event_id, depth FROM events WHERE {where} AND pos IS NOT NULL"
            " ORDER BY depth LIMIT 1",
            args,
        )
    return Kept(*row) if row is not None else None


def has_messages(txn: Transaction, room_nid: int, depth: int, heads: Collection[str]) -> bool:
    """Whether a room's history has messages of less than a depth, heads aside."""
    where, args = txn.any_of("event_id", heads)
    row = txn.one(
        "SELECT 1 FROM events WHERE room_nid = ? AND depth < ? AND pos IS NOT NULL"
        f" AND state_key IS NULL AND NOT ({where}) LIMIT 1",
        [room_nid, depth, *args],
    )
    return row is not None
