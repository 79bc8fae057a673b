"""The `rooms` table: one row a room, holding its head."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import NamedTuple

from storage.transaction import Transaction


class RoomRow(NamedTuple):
    """A room and its head: what a new event is built on."""

    room_nid: int
    room_id: str
    version: str
    head_version: int
    depth: int
    extremities: tuple[str, ...]
    state_root: bytes | None
    state_version: int
    notify_total: int
    highlight_total: int
    last_pos: int
    created_ts: int
    remote_servers: int


NUMBERS = "room_numbers"
"""The cache of rooms' numbers by their IDs: a room that was removed and comes back has another."""

COLUMNS = ", ".join(RoomRow._fields)
"""All columns, in the order of `RoomRow`."""


def from_row(raw: tuple[object, ...]) -> RoomRow:
    """The room of a row that has `COLUMNS`."""
    values = list(raw)
    values[5] = tuple(json.loads(values[5]))  # type: ignore[arg-type]
    return RoomRow(*values)  # type: ignore[arg-type]


def get(txn: Transaction, room_id: str) -> RoomRow | None:
    """The room of this ID, if this server knows it."""
    raw = txn.one(f"SELECT {COLUMNS} FROM rooms WHERE room_id = ?", (room_id,))
    return from_row(raw) if raw else None


def get_many(txn: Transaction, room_nids: Collection[int]) -> dict[int, RoomRow]:
    """The rooms of these numbers."""
    if not room_nids:
        return {}
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(f"SELECT {COLUMNS} FROM rooms WHERE {where}", args)
    return {row.room_nid: row for row in map(from_row, rows)}


def content_version(txn: Transaction, room_nid: int) -> int:
    """How often what clients are shown of the room has changed: see `contents_changed`."""
    found: int = txn.value("SELECT content_version FROM rooms WHERE room_nid = ?", (room_nid,))
    return found


def nid(txn: Transaction, room_id: str) -> int | None:
    """The number of a room."""
    found: int | None = txn.value("SELECT room_nid FROM rooms WHERE room_id = ?", (room_id,))
    return found


def lock(txn: Transaction, room_ids: Collection[str]) -> dict[str, RoomRow]:
    """The rooms of these IDs, locked until the transaction ends.

    Locks are taken in the order of the numbers, so that two appends to the same rooms never
    wait for each other.
    """
    where, args = txn.any_of("room_id", room_ids)
    suffix = " FOR UPDATE" if txn.dialect.name == "postgres" else ""
    rows = txn.all(f"SELECT {COLUMNS} FROM rooms WHERE {where} ORDER BY room_nid{suffix}", args)
    return {row.room_id: row for row in map(from_row, rows)}


_PUT = (
    f"INSERT INTO rooms ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (room_nid) DO UPDATE SET head_version = excluded.head_version,"
    " depth = excluded.depth, extremities = excluded.extremities,"
    " state_root = excluded.state_root, state_version = excluded.state_version,"
    " notify_total = excluded.notify_total, highlight_total = excluded.highlight_total,"
    " last_pos = excluded.last_pos, remote_servers = excluded.remote_servers"
)


def put(txn: Transaction, rows: Iterable[RoomRow]) -> None:
    """Write new rooms and new heads of known ones."""
    written = [(*row[:5], json.dumps(row.extremities), *row[6:]) for row in rows]
    if len(written) == 1:
        txn.later(_PUT, written[0])
    else:
        txn.many(_PUT, written)


def ensure(txn: Transaction, room_nid: int, room_id: str, version: str, now: int) -> RoomRow:
    """The room of this ID, locked; made without a head if it is not known.

    Parameters: `room_nid`, the number that it gets then; `now`, milliseconds.
    """
    row = RoomRow(room_nid, room_id, version, 0, 0, (), None, 0, 0, 0, 0, now, 0)
    txn.execute(
        f"INSERT INTO rooms ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (*row[:5], json.dumps(row.extremities), *row[6:]),
    )
    return lock(txn, [room_id])[room_id]


def set_version(txn: Transaction, room_nid: int, version: str) -> None:
    """Say anew which version a room has that this server never was in."""
    txn.execute("UPDATE rooms SET version = ? WHERE room_nid = ?", (version, room_nid))


def contents_changed(txn: Transaction, room_nids: Collection[int]) -> None:
    """Note that what clients are shown of rooms changes otherwise than by events at their end or
    by another state: who keeps something of the rooms' contents in memory compares
    `content_version`.

    To be called before the change, so that rooms are locked before their events.
    """
    if room_nids:
        where, args = txn.any_of("room_nid", sorted(room_nids))
        txn.execute(f"UPDATE rooms SET content_version = content_version + 1 WHERE {where}", args)
