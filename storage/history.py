"""What is here of a room's graph: questions to the `events` table about many events by ID."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.transaction import Transaction

_BATCH = 500


class Known(NamedTuple):
    """What is stored of an event, without its content."""

    event_id: str
    room_nid: int
    type: str
    state_key: str | None
    status: int
    depth: int
    placed: bool
    """Whether it has its place in the graph; otherwise it is here for what it authorises only."""


def known(txn: Transaction, event_ids: Collection[str]) -> dict[str, Known]:
    """What is stored of these events, by ID; unknown ones are left out. Of any room."""
    found = {}
    wanted = list(event_ids)
    for start in range(0, len(wanted), _BATCH):
        where, args = txn.any_of("event_id", wanted[start : start + _BATCH])
        for raw in txn.all(
            "SELECT event_id, room_nid, type, state_key, status, depth,"
            f" state_after IS NOT NULL FROM events WHERE {where}",
            args,
        ):
            found[raw[0]] = Known(raw[0], raw[1], raw[2], raw[3], raw[4], raw[5], bool(raw[6]))
    return found


def first_depth(txn: Transaction, room_nid: int) -> int:
    """The least depth of the room's events that have a place; 0 if there are none."""
    found: int | None = txn.value(
        "SELECT MIN(depth) FROM events WHERE room_nid = ? AND pos IS NOT NULL", (room_nid,)
    )
    return found if found is not None else 0
