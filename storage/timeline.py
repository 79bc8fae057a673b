"""Pages of a room's events, in the order of its graph: by depth, then by position.

Every event that was announced or fetched has a place (depth, position). Places are unique, so a
place tells exactly what comes before it and what after; events that are fetched later find theirs
between.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.transaction import Transaction


class Place(NamedTuple):
    """Right behind the event of this depth and position."""

    depth: int
    pos: int


def before(row: EventRow) -> Place:
    """The place right before an event."""
    return Place(row.depth, (row.pos or 0) - 1)


def behind(row: EventRow) -> Place:
    """The place right behind an event."""
    return Place(row.depth, row.pos or 0)


class Span(NamedTuple):
    """A part of a room's history; None is no bound.

    `above` and `upto` bound it in the order of the graph, `after` and `until` by position: by
    when this server knew the events.
    """

    above: Place | None = None
    upto: Place | None = None
    after: int | None = None
    until: int | None = None

    def condition(self, txn: Transaction) -> tuple[str, list[object]]:
        """SQL to be joined by AND, and its arguments."""
        parts = ["pos IS NOT NULL"]
        args: list[object] = []
        if self.above is not None:
            parts.append("(depth, pos) > (?, ?)")
            args += self.above
        if self.upto is not None:
            parts.append("(depth, pos) <= (?, ?)")
            args += self.upto
        if self.after is not None:
            parts.append("pos > ?")
            args.append(self.after)
        if self.until is not None:
            # SQLite would find these by position and sort all of them for one page.
            parts.append("+pos <= ?" if txn.dialect.name == "sqlite" else "pos <= ?")
            args.append(self.until)
        return " AND ".join(parts), args


class Wanted(NamedTuple):
    """Which events to look for; None: all."""

    types: Collection[str] | None = None
    senders: Collection[str] | None = None
    contains_url: bool | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Wanted()

    def condition(self, txn: Transaction) -> tuple[str, list[object]]:
        """SQL that begins with AND, and its arguments."""
        sql = ""
        args: list[object] = []
        for column, values in (("type", self.types), ("sender", self.senders)):
            if values is not None:
                where, more = txn.any_of(column, values)
                sql += f" AND {where}"
                args += more
        if self.contains_url is not None:
            sql += " AND contains_url = ?"
            args.append(self.contains_url)
        return sql, args


EVERYTHING = Wanted()


def _order(backwards: bool) -> str:
    return "ORDER BY depth DESC, pos DESC" if backwards else "ORDER BY depth, pos"


def page(
    txn: Transaction,
    room_nid: int,
    span: Span,
    *,
    backwards: bool,
    limit: int,
    wanted: Wanted = EVERYTHING,
) -> list[EventRow]:
    """Accepted events of a span, from its beginning, or from its end `backwards`."""
    within, args = span.condition(txn)
    only, more = wanted.condition(txn)
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE room_nid = ? AND {within}{only}"
        f" AND status = {ACCEPTED} {_order(backwards)} LIMIT ?",
        [room_nid, *args, *more, limit],
    )
    return [EventRow(*raw) for raw in rows]


def nth(txn: Transaction, room_nid: int, span: Span, *, backwards: bool, n: int) -> Place | None:
    """The place of the n-th event of a span, whatever it is; None if there are fewer."""
    within, args = span.condition(txn)
    raw = txn.one(
        f"SELECT depth, pos FROM events WHERE room_nid = ? AND {within}"
        f" {_order(backwards)} LIMIT 1 OFFSET ?",
        [room_nid, *args, n - 1],
    )
    return Place(*raw) if raw else None


def related(
    txn: Transaction,
    room_nid: int,
    event_id: str,
    span: Span,
    *,
    levels: int,
    rel_type: str | None,
    event_type: str | None,
    backwards: bool,
    limit: int,
) -> list[EventRow]:
    """A page of the events that relate to an event, through at most `levels` relations.

    `rel_type` and `event_type` hold for all events on the way.
    """
    only = ""
    more: list[object] = []
    for column, value in (("rel_type", rel_type), ("type", event_type)):
        if value is not None:
            only += f" AND e.{column} = ?"
            more.append(value)
    within, args = span.condition(txn)
    rows = txn.all(
        "WITH RECURSIVE related (event_nid, event_id, level) AS ("
        " SELECT e.event_nid, e.event_id, 1 FROM events e"
        f" WHERE e.relates_to = ? AND e.room_nid = ?{only}"
        " UNION"
        " SELECT e.event_nid, e.event_id, r.level + 1 FROM related r"
        " JOIN events e ON e.relates_to = r.event_id"
        f" WHERE r.level < ? AND e.room_nid = ?{only})"
        f" SELECT {COLUMNS} FROM events WHERE event_nid IN (SELECT event_nid FROM related)"
        f" AND {within} AND status = {ACCEPTED} AND event_id <> ?"
        f" {_order(backwards)} LIMIT ?",
        [event_id, room_nid, *more, levels, room_nid, *more, *args, event_id, limit],
    )
    return [EventRow(*raw) for raw in rows]


def by_time(
    txn: Transaction,
    room_nid: int,
    ts: int,
    *,
    backwards: bool,
    until: int | None,
    limit: int,
    skip: int,
) -> list[EventRow]:
    """Accepted events not before (or, `backwards`, not after) a time in milliseconds.

    The nearest first; equal times in the order of the graph.
    """
    bound = ""
    args: list[object] = []
    if until is not None:
        bound = " AND pos <= ?"
        args.append(until)
    compare, order = ("<=", " DESC") if backwards else (">=", "")
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE room_nid = ? AND origin_server_ts {compare} ?"
        f" AND pos IS NOT NULL AND status = {ACCEPTED}{bound}"
        f" ORDER BY origin_server_ts{order}, depth{order}, pos{order} LIMIT ? OFFSET ?",
        [room_nid, ts, *args, limit, skip],
    )
    return [EventRow(*raw) for raw in rows]


def newest(
    txn: Transaction,
    room_nid: int,
    after: int | None,
    upto: int,
    limit: int,
    wanted: Wanted = EVERYTHING,
) -> list[EventRow]:
    """Accepted events of `after < pos <= upto`, the last known first; None is no bound."""
    only, more = wanted.condition(txn)
    bound = "" if after is None else " AND pos > ?"
    args = [] if after is None else [after]
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE room_nid = ? AND pos <= ?{bound}{only}"
        f" AND status = {ACCEPTED} ORDER BY pos DESC LIMIT ?",
        [room_nid, upto, *args, *more, limit],
    )
    return [EventRow(*raw) for raw in rows]


def nth_newest(txn: Transaction, room_nid: int, upto: int, n: int) -> int | None:
    """The position of the n-th last event up to a position; None if there are fewer."""
    found: int | None = txn.value(
        "SELECT pos FROM events WHERE room_nid = ? AND pos <= ? ORDER BY pos DESC LIMIT 1 OFFSET ?",
        (room_nid, upto, n - 1),
    )
    return found


def lowest(txn: Transaction, room_nid: int) -> int:
    """The lowest position of the room's events; negative for history that was fetched."""
    found: int | None = txn.value("SELECT MIN(pos) FROM events WHERE room_nid = ?", (room_nid,))
    return found or 0


def has_deeper(txn: Transaction, room_nid: int, depth: int, before: int) -> bool:
    """Whether an event was known before a position that is at this depth or deeper."""
    found = txn.one(
        "SELECT 1 FROM events WHERE room_nid = ? AND depth >= ? AND pos < ? LIMIT 1",
        (room_nid, depth, before),
    )
    return found is not None


def last_known(txn: Transaction, room_nid: int, pos: int) -> EventRow | None:
    """The newest accepted event up to a position."""
    raw = txn.one(
        f"SELECT {COLUMNS} FROM events WHERE room_nid = ? AND pos <= ? AND status = {ACCEPTED}"
        " ORDER BY pos DESC LIMIT 1",
        (room_nid, pos),
    )
    return EventRow(*raw) if raw else None


def news(
    txn: Transaction, room_nids: Collection[int], after: int, upto: int, limit: int
) -> list[EventRow]:
    """Accepted events of these rooms in `after < pos <= upto`, by position, oldest first."""
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE {where} AND pos > ? AND pos <= ?"
        f" AND status = {ACCEPTED} ORDER BY pos LIMIT ?",
        [*args, after, upto, limit],
    )
    return [EventRow(*raw) for raw in rows]


def relation_pairs(
    txn: Transaction, event_ids: Collection[str]
) -> dict[str, list[tuple[str, str]]]:
    """The distinct (relation type, sender) of what relates to each of these events."""
    if not event_ids:
        return {}
    where, args = txn.any_of("relates_to", event_ids)
    found: dict[str, list[tuple[str, str]]] = {}
    for relates_to, rel_type, sender in txn.all(
        f"SELECT DISTINCT relates_to, rel_type, sender FROM events WHERE {where}"
        f" AND rel_type IS NOT NULL AND status = {ACCEPTED}",
        args,
    ):
        found.setdefault(relates_to, []).append((rel_type, sender))
    return found
