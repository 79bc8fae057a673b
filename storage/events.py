"""The `events` table: the log of the rooms, and what hangs on single events."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from storage import rooms
from storage.transaction import Transaction

ACCEPTED, SOFT_FAILED, REJECTED, MISPLACED = 0, 1, 2, 3
"""Values of `EventRow.status`. Rejected is what its own auth events forbid, misplaced what the
state before it forbids: both are rejected in the specification's terms, but only the first are
out of state resolution (room version 2, "Rejected events")."""


class EventRow(NamedTuple):
    """An event as stored. `storage/schema/0002_rooms.sql` and `0010_federation.sql` explain the
    columns."""

    event_nid: int
    event_id: str
    room_nid: int
    pos: int | None
    depth: int
    type: str
    state_key: str | None
    sender: str
    origin_server_ts: int
    json: str
    status: int
    state_before: bytes | None
    state_after: bytes | None
    replaces_state: str | None
    redacted_by: str | None
    relates_to: str | None
    rel_type: str | None
    thread_root: str | None
    contains_url: bool
    notify: int
    notify_total: int
    highlight_total: int
    txn_device: str | None
    txn_scope: str | None
    txn_id: str | None
    outgoing: bool


COLUMNS = ", ".join(EventRow._fields)
"""All columns, in the order of `EventRow`."""

_INSERT = f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * len(EventRow._fields))})"


class OutlierRow(NamedTuple):
    """A new event that has no place in its room and relates to nothing: a part of `EventRow`."""

    event_nid: int
    event_id: str
    room_nid: int
    depth: int
    type: str
    state_key: str | None
    sender: str
    origin_server_ts: int
    json: str
    status: int
    contains_url: bool
    notify: int = 0
    notify_total: int = 0
    highlight_total: int = 0


_INSERT_OUTLIER = (
    f"INSERT INTO events ({', '.join(OutlierRow._fields)})"
    f" VALUES ({', '.join('?' * len(OutlierRow._fields))})"
)
_FEW_HELD = 100


class TransactionKey(NamedTuple):
    """What makes a client's request the same request: see "Transaction identifiers"."""

    device: str
    scope: str
    """`send/TYPE` or `redact/EVENT`."""
    txn_id: str


def insert(txn: Transaction, rows: Iterable[EventRow]) -> None:
    """Add events."""
    listed = list(rows)
    # Fetched history may be among the newest events of a short timeline.
    fetched = {row.room_nid for row in listed if row.pos is not None and row.pos < 0}
    rooms.contents_changed(txn, fetched)
    txn.many(_INSERT, listed)


def insert_outliers(txn: Transaction, rows: list[OutlierRow]) -> None:
    """Add events that have no place."""
    txn.many(_INSERT_OUTLIER, rows)


def overwrite(txn: Transaction, rows: Iterable[EventRow]) -> None:
    """Give known events, by their numbers, a place or another verdict.

    What is redacted stays so, whatever the rows have of its content.
    """
    fixed = ("event_nid", "event_id", "room_nid", "redacted_by")
    pruned = ("json", "relates_to", "rel_type", "thread_root", "contains_url")
    names = [name for name in EventRow._fields if name not in fixed]
    sets = ", ".join(
        f"{name} = CASE WHEN redacted_by IS NULL THEN ? ELSE {name} END"
        if name in pruned
        else f"{name} = ?"
        for name in names
    )
    listed = list(rows)
    contents_changed(txn, [row.event_nid for row in listed])
    for row in listed:
        values = row._asdict()
        txn.execute(
            f"UPDATE events SET {sets} WHERE event_nid = ?",
            [*(values[name] for name in names), row.event_nid],
        )


def get(txn: Transaction, event_id: str) -> EventRow | None:
    """The event of this ID."""
    raw = txn.one(f"SELECT {COLUMNS} FROM events WHERE event_id = ?", (event_id,))
    return EventRow(*raw) if raw else None


def get_many(txn: Transaction, event_ids: Collection[str]) -> dict[str, EventRow]:
    """Events by their IDs; unknown ones are left out."""
    if not event_ids:
        return {}
    where, args = txn.any_of("event_id", event_ids)
    rows = txn.all(f"SELECT {COLUMNS} FROM events WHERE {where}", args)
    return {raw[1]: EventRow(*raw) for raw in rows}


def get_by_nids(txn: Transaction, event_nids: Collection[int]) -> dict[int, EventRow]:
    """Events by their numbers."""
    if not event_nids:
        return {}
    where, args = txn.any_of("event_nid", event_nids)
    rows = txn.all(f"SELECT {COLUMNS} FROM events WHERE {where}", args)
    return {raw[0]: EventRow(*raw) for raw in rows}


class EventText(NamedTuple):
    """What the rules need of a stored event: a part of `EventRow`, which costs less to read."""

    event_nid: int
    event_id: str
    room_nid: int
    status: int
    json: str


def texts(txn: Transaction, event_ids: Collection[str]) -> list[EventText]:
    """Events by their IDs; unknown ones are left out."""
    return _texts(txn, "event_id", event_ids)


def texts_by_nids(txn: Transaction, event_nids: Collection[int]) -> list[EventText]:
    """Events by their numbers."""
    return _texts(txn, "event_nid", event_nids)


def _texts(txn: Transaction, column: str, values: Collection[str | int]) -> list[EventText]:
    if not values:
        return []
    where, args = txn.any_of(column, values)
    rows = txn.all(f"SELECT {', '.join(EventText._fields)} FROM events WHERE {where}", args)
    return [EventText(*raw) for raw in rows]


class EventNumber(NamedTuple):
    """What tells whether an event is known, and how."""

    event_id: str
    event_nid: int
    room_nid: int
    status: int
    is_redacted: bool


def numbers(txn: Transaction, event_ids: Collection[str]) -> list[EventNumber]:
    """Numbers of events by their IDs, as of `texts`."""
    where, args = txn.any_of("event_id", event_ids)
    rows = txn.all(
        "SELECT event_id, event_nid, room_nid, status, redacted_by IS NOT NULL FROM events"
        f" WHERE {where}",
        args,
    )
    return [EventNumber(*raw) for raw in rows]


def of_room(txn: Transaction, room_nid: int, event_nids: Collection[int]) -> set[int]:
    """Those of the events that are in a room."""
    found: set[int] = set()
    numbers = list(event_nids)
    for start in range(0, len(numbers), 500):
        where, args = txn.any_of("event_nid", numbers[start : start + 500])
        rows = txn.all(
            f"SELECT event_nid FROM events WHERE {where} AND room_nid = ?", [*args, room_nid]
        )
        found.update(row[0] for row in rows)
    return found


def by_transaction(
    txn: Transaction, keys: Sequence[tuple[int, str, TransactionKey]]
) -> dict[tuple[int, str, TransactionKey], str]:
    """Event IDs that earlier requests of the same (room number, sender, transaction) made."""
    if not keys:
        return {}
    values = ", ".join(["(?, ?, ?, ?)"] * len(keys))
    args: list[object] = []
    for room_nid, sender, key in keys:
        args += (room_nid, sender, key.device, key.txn_id)
    rows = txn.all(
        "SELECT room_nid, sender, txn_device, txn_scope, txn_id, event_id FROM events WHERE"
        f" txn_id IS NOT NULL AND (room_nid, sender, txn_device, txn_id) IN (VALUES {values})",
        args,
    )
    return {(row[0], row[1], TransactionKey(row[2], row[3], row[4])): row[5] for row in rows}


def placed_since(txn: Transaction, room_nid: int, event_id: str) -> list[EventRow]:
    """The event, those after it in the room's log, and all that are kept out of the log but have
    states before and after them."""
    pos = txn.value("SELECT pos FROM events WHERE event_id = ?", (event_id,))
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE room_nid = ? AND pos >= ?"
        f" UNION ALL SELECT {COLUMNS} FROM events"
        " WHERE room_nid = ? AND pos IS NULL AND state_before IS NOT NULL",
        (room_nid, pos, room_nid),
    )
    return [EventRow(*raw) for raw in rows]


def thread_roots(txn: Transaction, event_ids: Collection[str]) -> dict[str, str]:
    """The thread of each of these events that is in one, by event ID."""
    if not event_ids:
        return {}
    where, args = txn.any_of("event_id", event_ids)
    rows = txn.all(
        f"SELECT event_id, thread_root FROM events WHERE {where} AND thread_root IS NOT NULL", args
    )
    return {row[0]: row[1] for row in rows}


def is_thread_root(txn: Transaction, event_id: str) -> bool:
    """Whether an event relates to this one by `m.thread`."""
    sql = "SELECT 1 FROM events WHERE relates_to = ? AND rel_type = 'm.thread' LIMIT 1"
    return txn.one(sql, (event_id,)) is not None


def set_redacted(txn: Transaction, event_nid: int, redacted_by: str, json: str) -> None:
    """Replace an event by its redacted form."""
    contents_changed(txn, [event_nid])
    txn.execute(
        "UPDATE events SET redacted_by = ?, json = ?, relates_to = NULL, rel_type = NULL,"
        " contains_url = ? WHERE event_nid = ?",
        (redacted_by, json, False, event_nid),
    )


def contents_changed(txn: Transaction, event_nids: Collection[int]) -> None:
    """`storage.rooms.contents_changed` of the rooms of events, which are about to be changed."""
    if event_nids:
        where, args = txn.any_of("event_nid", event_nids)
        nids = txn.all(f"SELECT DISTINCT room_nid FROM events WHERE {where}", args)
        rooms.contents_changed(txn, [row[0] for row in nids])


def hold_redaction(txn: Transaction, redacts: str, redaction_id: str) -> None:
    """Keep a redaction until the event that it redacts is known."""
    txn.execute(
        "INSERT INTO pending_redactions (redacts, redaction_id) VALUES (?, ?)"
        " ON CONFLICT DO NOTHING",
        (redacts, redaction_id),
    )


def held_redactions(
    txn: Transaction,
    event_ids: Collection[str],
    waiting: Sequence[tuple[str, str]] | None = None,
) -> dict[str, list[str]]:
    """Redactions that wait for these events, by the event's ID.

    Parameters: `waiting`, all redactions that wait, with what they redact, if at hand.
    """
    if not event_ids:
        return {}
    if waiting is None and len(event_ids) > _FEW_HELD:
        # Mostly there are few of them, or none at all.
        sql = "SELECT redacts, redaction_id FROM pending_redactions LIMIT ?"
        waiting = txn.all(sql, (_FEW_HELD,))
        if len(waiting) == _FEW_HELD:
            waiting = None
    if waiting is None:
        where, args = txn.any_of("redacts", event_ids)
        sql = f"SELECT redacts, redaction_id FROM pending_redactions WHERE {where}"
        waiting = txn.all(sql, args)
    wanted, found = set(event_ids), dict[str, list[str]]()
    for redacts, redaction_id in waiting:
        if redacts in wanted:
            found.setdefault(redacts, []).append(redaction_id)
    return found


def annotations_by(txn: Transaction, room_nid: int, parent: str, sender: str) -> list[str]:
    """JSON of a sender's annotations of an event."""
    rows = txn.all(
        "SELECT json FROM events WHERE relates_to = ? AND room_nid = ? AND sender = ?"
        " AND rel_type = 'm.annotation' AND redacted_by IS NULL",
        (parent, room_nid, sender),
    )
    return [row[0] for row in rows]
