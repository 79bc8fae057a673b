"""What the log has for people who have themselves notified.

It reads the tables of other modules, because many events are to be judged in few statements.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.events import COLUMNS, EventRow
from storage.transaction import Transaction

_HAS_PUSHER = "SELECT user_id FROM pushers WHERE enabled AND activated"


class Member(NamedTuple):
    """A user with a pusher who is in a room; `pos` is that of their member event."""

    room_nid: int
    user_id: str
    displayname: str | None
    pos: int


class Told(NamedTuple):
    """What an event does to one user, where its class does not say it."""

    user_id: str
    pos: int
    notify: int
    highlight: int


class Invited(NamedTuple):
    """An invite of a user with a pusher, while it stands."""

    pos: int
    room_nid: int
    user_id: str
    event_nid: int
    sender: str


def loud_events(txn: Transaction, after: int, upto: int, limit: int) -> list[EventRow]:
    """Events in `after < pos <= upto` that notify anybody, in order."""
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events e WHERE pos > ? AND pos <= ? AND redacted_by IS NULL"
        " AND (notify > 0 OR EXISTS (SELECT 1 FROM notify_marks m WHERE m.pos = e.pos))"
        " ORDER BY pos LIMIT ?",
        (after, upto, limit),
    )
    return [EventRow(*raw) for raw in rows]


def members(txn: Transaction, room_nids: Collection[int]) -> list[Member]:
    """Users of this server with a pusher who are in the rooms."""
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT room_nid, user_id, displayname, pos FROM memberships WHERE {where}"
        f" AND membership = 'join' AND is_local AND user_id IN ({_HAS_PUSHER})",
        args,
    )
    return [Member(*raw) for raw in rows]


def joined_since(txn: Transaction, room_nid: int, user_id: str) -> int | None:
    """The position of the user's last join of a room, not of a change of name."""
    found: int | None = txn.value(
        "SELECT pos FROM membership_log WHERE room_nid = ? AND user_id = ?"
        " AND membership = 'join' AND previous <> 'join' ORDER BY pos DESC LIMIT 1",
        (room_nid, user_id),
    )
    return found


def marks(txn: Transaction, first: int, last: int) -> list[Told]:
    """What events in `first <= pos <= last` do to single users."""
    rows = txn.all(
        "SELECT user_id, pos, notify, highlight FROM notify_marks WHERE pos >= ? AND pos <= ?",
        (first, last),
    )
    return [Told(*raw) for raw in rows]


def invites(txn: Transaction, after: int, upto: int) -> list[Invited]:
    """Invites in `after < pos <= upto` of users with a pusher, in order."""
    rows = txn.all(
        "SELECT l.pos, l.room_nid, l.user_id, l.event_nid, l.sender FROM membership_log l"
        " JOIN memberships m ON m.room_nid = l.room_nid AND m.user_id = l.user_id"
        " WHERE l.pos > ? AND l.pos <= ? AND l.membership = 'invite' AND l.previous <> 'invite'"
        " AND m.membership = 'invite' AND m.is_local AND m.event_nid = l.event_nid"
        f" AND l.user_id IN ({_HAS_PUSHER}) ORDER BY l.pos",
        (after, upto),
    )
    return [Invited(*raw) for raw in rows]


def readers(txn: Transaction, after: int, upto: int, senders: Collection[str]) -> set[str]:
    """Users with a pusher who read something, or entered or left a room, in this part of the
    log, and those of the senders who have one: who writes has read."""
    where, args = txn.any_of("user_id", senders)
    rows = txn.all(
        f"SELECT user_id FROM receipts WHERE pos > ? AND pos <= ? AND user_id IN ({_HAS_PUSHER})"
        " UNION SELECT user_id FROM membership_log WHERE pos > ? AND pos <= ?"
        f" AND previous <> membership AND user_id IN ({_HAS_PUSHER})"
        f" UNION {_HAS_PUSHER} AND {where}",
        (after, upto, after, upto, *args),
    )
    return {row[0] for row in rows}


def page(
    txn: Transaction,
    room_nid: int,
    user_id: str,
    after: int,
    before: int,
    least_class: int,
    limit: int,
) -> list[EventRow]:
    """Events of others in `after < pos < before` of at least a class, the newest first."""
    sql = (
        f"SELECT {COLUMNS} FROM events WHERE room_nid = ? AND pos > ? AND pos < ?"
        f" AND notify > {1 if least_class > 1 else 0} AND redacted_by IS NULL AND sender <> ?"
        " ORDER BY pos DESC LIMIT ?"
    )
    return [EventRow(*raw) for raw in txn.all(sql, (room_nid, after, before, user_id, limit))]


def marked_page(
    txn: Transaction, room_nid: int, user_id: str, after: int, before: int, limit: int
) -> list[tuple[EventRow, Told]]:
    """Events in `after < pos < before` with a mark of the user, the newest first."""
    columns = ", ".join(f"e.{name}" for name in EventRow._fields)
    rows = txn.all(
        f"SELECT m.user_id, m.pos, m.notify, m.highlight, {columns} FROM notify_marks m"
        " JOIN events e ON e.room_nid = m.room_nid AND e.pos = m.pos"
        " WHERE m.user_id = ? AND m.room_nid = ? AND m.pos > ? AND m.pos < ?"
        " AND e.redacted_by IS NULL ORDER BY m.pos DESC LIMIT ?",
        (user_id, room_nid, after, before, limit),
    )
    return [(EventRow(*raw[4:]), Told(*raw[:4])) for raw in rows]


class Call(NamedTuple):
    """An event of a call (`m.call.invite` and what ends its ringing)."""

    room_nid: int
    pos: int
    sender: str
    origin_server_ts: int
    type: str
    json: str


def calls(txn: Transaction, room_nids: Collection[int], limit: int) -> list[Call]:
    """The newest events of calls in rooms."""
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        "SELECT room_nid, pos, sender, origin_server_ts, type, json FROM events"
        f" WHERE {where} AND type IN ('m.call.invite', 'm.call.answer', 'm.call.reject',"
        " 'm.call.hangup', 'm.call.select_answer') AND redacted_by IS NULL AND pos IS NOT NULL"
        " ORDER BY pos DESC LIMIT ?",
        [*args, limit],
    )
    return [Call(*raw) for raw in rows]
