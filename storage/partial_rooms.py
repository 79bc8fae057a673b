"""Rooms of which not all members are known yet. Table `partial_rooms`."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class PartialRoom(NamedTuple):
    """A room that was entered without the members' events, and by which join."""

    room_nid: int
    join_event_id: str
    started_ts: int


def put(txn: Transaction, room: PartialRoom) -> None:
    """Note that members of a room are not known."""
    txn.execute(
        "INSERT INTO partial_rooms (room_nid, join_event_id, started_ts) VALUES (?, ?, ?)"
        " ON CONFLICT (room_nid) DO UPDATE SET join_event_id = excluded.join_event_id,"
        " started_ts = excluded.started_ts",
        room,
    )


def get(txn: Transaction, room_nid: int) -> PartialRoom | None:
    """By what a room was entered, if not all of its members are known."""
    raw = txn.one(
        "SELECT room_nid, join_event_id, started_ts FROM partial_rooms WHERE room_nid = ?",
        (room_nid,),
    )
    return PartialRoom(*raw) if raw else None


def remove(txn: Transaction, room_nid: int) -> None:
    """All members of a room are known now."""
    txn.execute("DELETE FROM partial_rooms WHERE room_nid = ?", (room_nid,))
