"""What relates to events: the children that aggregations are made of."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.dialect import array_text
from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.timeline import Place
from storage.transaction import Transaction

AGGREGATED = ("m.thread", "m.replace", "m.reference")
"""Relation types whose children are aggregated."""

GRAPH_ORDER = "depth DESC, pos DESC"
"""Newest first, for threads and references."""

TIME_ORDER = "origin_server_ts DESC, event_id DESC"
"""Newest first, for replacements (client-server API, "Event replacements")."""

_ROOT = ", ".join("e." + column for column in COLUMNS.split(", "))
_JOINED = ", ".join("c." + column for column in COLUMNS.split(", "))


class Tally(NamedTuple):
    """How many children of one relation type an event has."""

    total: int
    own: bool
    """Whether the reader sent one of them."""


def tallies(
    txn: Transaction,
    room_nid: int,
    parents: Collection[str],
    reader_id: str,
    ignored: Collection[str] = (),
) -> dict[tuple[str, str], Tally]:
    """The numbers of children by (event ID of the parent, relation type)."""
    if not parents:
        return {}
    where, args = txn.any_of("relates_to", parents)
    kinds, more = txn.any_of("rel_type", AGGREGATED)
    unheard, names = txn.any_of("sender", ignored)
    rows = txn.all(
        "SELECT relates_to, rel_type, COUNT(*), MAX(CASE WHEN sender = ? THEN 1 ELSE 0 END)"
        f" FROM events WHERE {where} AND {kinds} AND room_nid = ? AND status = {ACCEPTED}"
        f" AND pos IS NOT NULL AND NOT ({unheard}) GROUP BY relates_to, rel_type",
        [reader_id, *args, *more, room_nid, *names],
    )
    return {(row[0], row[1]): Tally(row[2], bool(row[3])) for row in rows}


def with_children(txn: Transaction, event_ids: Collection[str]) -> frozenset[str]:
    """Those of the events to which any other relates."""
    if not event_ids:
        return frozenset()
    if txn.dialect.name == "postgres":
        # Each by the index (LIMIT): for many it would rather read all events.
        rows = txn.all(
            "SELECT w.name FROM unnest(CAST(? AS TEXT[])) AS w (name) CROSS JOIN LATERAL"
            " (SELECT 1 FROM events WHERE relates_to = w.name LIMIT 1) AS e",
            [array_text(event_ids)],
        )
        return frozenset(row[0] for row in rows)
    where, args = txn.any_of("relates_to", event_ids)
    rows = txn.all(f"SELECT DISTINCT relates_to FROM events WHERE {where}", args)
    return frozenset(row[0] for row in rows)


def newest(
    txn: Transaction,
    room_nid: int,
    parents: Collection[str],
    rel_type: str,
    order: str,
    limit: int,
    ignored: Collection[str] = (),
) -> dict[str, list[EventRow]]:
    """The newest `limit` children of each event, by the event's ID, newest first."""
    if not parents:
        return {}
    where, args = txn.any_of("relates_to", parents)
    unheard, names = txn.any_of("sender", ignored)
    rows = txn.all(
        f"SELECT {COLUMNS} FROM (SELECT {COLUMNS}, ROW_NUMBER() OVER"
        f" (PARTITION BY relates_to ORDER BY {order}) AS place FROM events"
        f" WHERE {where} AND rel_type = ? AND room_nid = ? AND status = {ACCEPTED}"
        f" AND pos IS NOT NULL AND NOT ({unheard})) ranked"
        " WHERE place <= ? ORDER BY place",
        [*args, rel_type, room_nid, *names, limit],
    )
    found: dict[str, list[EventRow]] = {}
    for raw in rows:
        row = EventRow(*raw)
        found.setdefault(row.relates_to or "", []).append(row)
    return found


def active_threads(
    txn: Transaction,
    room_nid: int,
    *,
    behind: Place | None,
    until: int | None,
    participant: str | None,
    ignored: Collection[str],
    limit: int,
) -> list[tuple[Place, EventRow]]:
    """Roots of threads with the places of their last events, those with the newest first.

    Parameters: `behind`, only with an older last event; `until`, the last position that counts;
    `participant`, only threads that this user began or wrote in; `ignored`, users whose events do
    not count.
    """
    unheard, names = txn.any_of("sender", ignored)
    known = "" if until is None else " AND pos <= ?"
    first: list[object] = [room_nid, *names, *(() if until is None else (until,)), room_nid]
    args: list[object] = []
    conditions = "t.place = 1"
    if behind is not None:
        conditions += " AND (t.depth, t.pos) < (?, ?)"
        args += behind
    if participant is not None:
        conditions += (
            " AND (e.sender = ? OR EXISTS (SELECT 1 FROM events p WHERE p.relates_to = t.relates_to"
            " AND p.room_nid = e.room_nid AND p.rel_type = 'm.thread' AND p.sender = ?"
            f" AND p.pos IS NOT NULL AND p.status = {ACCEPTED}))"
        )
        args += [participant, participant]
    rows = txn.all(
        f"SELECT t.depth, t.pos, {_ROOT} FROM (SELECT relates_to, depth, pos, ROW_NUMBER() OVER"
        " (PARTITION BY relates_to ORDER BY depth DESC, pos DESC) AS place FROM events"
        f" WHERE room_nid = ? AND rel_type = 'm.thread' AND status = {ACCEPTED}"
        f" AND pos IS NOT NULL AND NOT ({unheard}){known}) t"
        " JOIN events e ON e.event_id = t.relates_to AND e.room_nid = ? AND e.pos IS NOT NULL"
        f" AND e.status = {ACCEPTED} AND e.rel_type IS NULL AND e.state_key IS NULL"
        f" WHERE {conditions} ORDER BY t.depth DESC, t.pos DESC LIMIT ?",
        [*first, *args, limit],
    )
    return [(Place(row[0], row[1]), EventRow(*row[2:])) for row in rows]


def unredacted(
    txn: Transaction,
    room_nid: int,
    parent: str,
    rel_types: Collection[str] | None,
    after: str,
    limit: int,
) -> list[str]:
    """IDs of an event's children that are not redacted, of these relation types or of all.

    In the order of their IDs, behind `after`.
    """
    where, args = (
        ("rel_type IS NOT NULL", []) if rel_types is None else txn.any_of("rel_type", rel_types)
    )
    rows = txn.all(
        f"SELECT event_id FROM events WHERE relates_to = ? AND {where} AND room_nid = ?"
        f" AND status = {ACCEPTED} AND pos IS NOT NULL AND redacted_by IS NULL AND event_id > ?"
        " ORDER BY event_id LIMIT ?",
        [parent, *args, room_nid, after, limit],
    )
    return [row[0] for row in rows]


def replacements(
    txn: Transaction, room_nid: int, parents: Collection[str], limit: int
) -> dict[str, list[EventRow]]:
    """The newest `limit` replacements of each event by its own sender and of its own type."""
    if not parents:
        return {}
    where, args = txn.any_of("p.event_id", parents)
    rows = txn.all(
        f"SELECT {COLUMNS} FROM (SELECT {_JOINED}, ROW_NUMBER() OVER"
        " (PARTITION BY c.relates_to ORDER BY c.origin_server_ts DESC, c.event_id DESC) AS place"
        " FROM events p JOIN events c ON c.relates_to = p.event_id AND c.sender = p.sender"
        f" AND c.type = p.type AND c.room_nid = p.room_nid WHERE {where} AND p.room_nid = ?"
        " AND p.state_key IS NULL AND c.rel_type = 'm.replace' AND c.state_key IS NULL"
        f" AND c.pos IS NOT NULL AND c.status = {ACCEPTED}) ranked"
        " WHERE place <= ? ORDER BY place",
        [*args, room_nid, limit],
    )
    found: dict[str, list[EventRow]] = {}
    for raw in rows:
        row = EventRow(*raw)
        found.setdefault(row.relates_to or "", []).append(row)
    return found
