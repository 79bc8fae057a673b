"""The `appservice_streams` table: how far application services have been told; and what the log
has for them: reads events, memberships and receipts."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage import clock
from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.transaction import Transaction


class StreamRow(NamedTuple):
    """How far a service has been told, and the transaction under way."""

    pos: int
    txn_number: int
    upto: int | None
    body: str | None


class Move(NamedTuple):
    """A user's membership of a room changed."""

    pos: int
    room_nid: int
    user_id: str
    previous: str


class Outside(NamedTuple):
    """A user's membership changed by an event that is in no timeline: an invite, say, to a room
    that nobody here is in."""

    pos: int
    room_nid: int
    user_id: str
    event_nid: int


class Receipt(NamedTuple):
    """Somebody has read up to an event."""

    pos: int
    room_nid: int
    user_id: str
    type: str
    thread_id: str
    event_id: str
    ts: int


def begin(txn: Transaction, appservice_id: str, first_number: int) -> None:
    """A service that was not known is told from now on."""
    txn.execute(
        "INSERT INTO appservice_streams (appservice_id, pos, txn_number) VALUES (?, ?, ?)"
        " ON CONFLICT (appservice_id) DO NOTHING",
        (appservice_id, clock.position(txn), first_number),
    )


def get(txn: Transaction, appservice_id: str) -> StreamRow:
    """How far a service has been told."""
    raw = txn.one(
        "SELECT pos, txn_number, upto, body FROM appservice_streams WHERE appservice_id = ?",
        (appservice_id,),
    )
    assert raw is not None
    return StreamRow(*raw)


def skip(txn: Transaction, appservice_id: str, old: int, new: int) -> None:
    """There is nothing for the service between two positions."""
    txn.execute(
        "UPDATE appservice_streams SET pos = ? WHERE appservice_id = ? AND pos = ?",
        (new, appservice_id, old),
    )


def put(txn: Transaction, appservice_id: str, old: int, upto: int, body: str) -> bool:
    """Note the next transaction; False if another process was there."""
    changed = txn.execute(
        "UPDATE appservice_streams SET upto = ?, body = ?, txn_number = txn_number + 1"
        " WHERE appservice_id = ? AND pos = ? AND upto IS NULL",
        (upto, body, appservice_id, old),
    )
    return changed == 1


def taken(txn: Transaction, appservice_id: str, txn_number: int) -> None:
    """The service has taken the transaction under way."""
    txn.execute(
        "UPDATE appservice_streams SET pos = upto, upto = NULL, body = NULL"
        " WHERE appservice_id = ? AND txn_number = ? AND upto IS NOT NULL",
        (appservice_id, txn_number),
    )


# The log


def events(txn: Transaction, after: int, upto: int, limit: int) -> list[EventRow]:
    """Accepted events of `after < pos <= upto`, in order."""
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE pos > ? AND pos <= ? AND status = {ACCEPTED}"
        " ORDER BY pos LIMIT ?",
        (after, upto, limit),
    )
    return [EventRow(*raw) for raw in rows]


def moves(txn: Transaction, after: int, room_nids: Collection[int]) -> list[Move]:
    """All changes of memberships of these rooms behind a position, in order."""
    if not room_nids:
        return []
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        "SELECT pos, room_nid, user_id, previous FROM membership_log"
        f" WHERE {where} AND pos > ? ORDER BY pos",
        [*args, after],
    )
    return [Move(*raw) for raw in rows]


def outside(txn: Transaction, after: int, upto: int, limit: int) -> list[Outside]:
    """Memberships of `after < pos <= upto` by events that are in no timeline, in order."""
    rows = txn.all(
        "SELECT l.pos, l.room_nid, l.user_id, l.event_nid FROM membership_log l"
        " JOIN events e ON e.event_nid = l.event_nid"
        " WHERE l.pos > ? AND l.pos <= ? AND e.pos IS NULL ORDER BY l.pos LIMIT ?",
        (after, upto, limit),
    )
    return [Outside(*raw) for raw in rows]


def receipts(txn: Transaction, after: int, upto: int, limit: int) -> list[Receipt]:
    """Receipts of `after < pos <= upto`, in order."""
    rows = txn.all(
        "SELECT pos, room_nid, user_id, type, thread_id, event_id, ts FROM receipts"
        " WHERE pos > ? AND pos <= ? ORDER BY pos LIMIT ?",
        (after, upto, limit),
    )
    return [Receipt(*raw) for raw in rows]
