"""Where histories are missing. Tables `event_gaps` and `timeline_breaks`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from storage.events import ACCEPTED
from storage.transaction import Transaction


class Gap(NamedTuple):
    """A missing event, and the event that names it as a predecessor."""

    event_id: str
    successor: str
    depth: int
    """Of the successor."""


def add(txn: Transaction, room_nid: int, gaps: Iterable[Gap]) -> None:
    """Note missing events."""
    txn.many(
        "INSERT INTO event_gaps (room_nid, event_id, successor, depth) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [(room_nid, *gap) for gap in gaps],
    )


def missing(
    txn: Transaction, room_nid: int, event_ids: Collection[str], noted: set[str] | None = None
) -> set[str]:
    """Those of the events that are missing: an accepted event that is here names them.

    Parameters: `noted`, what `still_open` says of them, if at hand.
    """
    if noted is None:
        # Mostly none is: that is found out by a statement which takes no time to be planned.
        noted = still_open(txn, room_nid, event_ids)
    if not noted:
        return noted
    where, args = txn.any_of("g.event_id", noted)
    rows = txn.all(
        "SELECT DISTINCT g.event_id FROM event_gaps g JOIN events e ON e.event_id = g.successor"
        f" WHERE g.room_nid = ? AND e.status = {ACCEPTED} AND {where}",
        [room_nid, *args],
    )
    return {row[0] for row in rows}


def still_open(txn: Transaction, room_nid: int, event_ids: Collection[str]) -> set[str]:
    """Those of the events that are noted as missing."""
    if not event_ids:
        return set()
    where, args = txn.any_of("event_id", event_ids)
    rows = txn.all(
        f"SELECT DISTINCT event_id FROM event_gaps WHERE room_nid = ? AND {where}",
        [room_nid, *args],
    )
    return {row[0] for row in rows}


def close(txn: Transaction, room_nid: int, event_ids: Collection[str]) -> None:
    """These events are here now, or will never be."""
    if event_ids:
        where, args = txn.any_of("event_id", event_ids)
        txn.execute(f"DELETE FROM event_gaps WHERE room_nid = ? AND {where}", [room_nid, *args])


def at_or_above(txn: Transaction, room_nid: int, depth: int, limit: int) -> list[Gap]:
    """Gaps right before events of this depth or deeper, the deepest first."""
    rows = txn.all(
        "SELECT event_id, successor, depth FROM event_gaps WHERE room_nid = ? AND depth >= ?"
        " ORDER BY depth DESC, successor, event_id LIMIT ?",
        (room_nid, depth, limit),
    )
    return [Gap(*row) for row in rows]


def within(
    txn: Transaction, room_nid: int, low: int, high: int | None, until: int | None, limit: int
) -> list[Gap]:
    """Gaps right before events of `low <= depth <= high`, the deepest first.

    Parameters: `until`, the last position that such an event may have (rejected ones have none);
    None is no bound.
    """
    bounds = ""
    args: list[object] = []
    if high is not None:
        bounds += " AND g.depth <= ?"
        args.append(high)
    if until is not None:
        bounds += " AND (e.pos IS NULL OR e.pos <= ?)"
        args.append(until)
    rows = txn.all(
        "SELECT g.event_id, g.successor, g.depth FROM event_gaps g"
        " JOIN events e ON e.event_id = g.successor AND e.room_nid = g.room_nid"
        f" WHERE g.room_nid = ? AND g.depth >= ?{bounds}"
        " ORDER BY g.depth DESC, g.successor, g.event_id LIMIT ?",
        [room_nid, low, *args, limit],
    )
    return [Gap(*row) for row in rows]


def add_breaks(txn: Transaction, room_nid: int, positions: Iterable[int]) -> None:
    """Note that there were gaps right before the events at these positions when they came."""
    txn.many(
        "INSERT INTO timeline_breaks (room_nid, pos) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(room_nid, pos) for pos in positions],
    )


def last_break(txn: Transaction, room_nid: int, upto: int) -> int | None:
    """The last position, up to one, of an event that came with a gap right before it."""
    found: int | None = txn.value(
        "SELECT pos FROM timeline_breaks WHERE room_nid = ? AND pos <= ? ORDER BY pos DESC LIMIT 1",
        (room_nid, upto),
    )
    return found
