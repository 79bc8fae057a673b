"""What the log has for other servers: reads events, memberships, room servers and receipts.

Every function serves all destinations in one statement; with `server` it is asked for one that
is behind.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.transaction import Transaction

CHANNEL = "federation"
"""Hints that there is something new for other servers. Without one it is found within a
second."""


class OutgoingEvent(NamedTuple):
    """An event that this server sends to others; `json` is its federation form."""

    pos: int
    room_nid: int
    type: str
    state_key: str | None
    sender: str
    json: str


class Move(NamedTuple):
    """A user entered or left a room at `pos`."""

    pos: int
    room_nid: int
    user_id: str
    entered: bool


class OutgoingReceipt(NamedTuple):
    """A public receipt in a room that other servers are in."""

    pos: int
    room_nid: int
    room_id: str
    user_id: str
    thread_id: str
    event_id: str
    ts: int


class Others(NamedTuple):
    """Whether there is anything but events."""

    receipts: bool
    device_updates: bool
    to_device: bool
    entered: bool
    """Somebody entered a room while there are sticky events."""


_EVENT = ", ".join(f"e.{name}" for name in OutgoingEvent._fields)
_IN_ROOMS_OF = " AND {}.room_nid IN (SELECT room_nid FROM room_servers WHERE server_name = ?)"


def events(
    txn: Transaction, after: int, upto: int, limit: int, server: str | None = None
) -> list[OutgoingEvent]:
    """Outgoing events of `after < pos <= upto`, in order; of the rooms that `server` is in."""
    scope, args = ("", []) if server is None else (_IN_ROOMS_OF.format("e"), [server])
    rows = txn.all(
        f"SELECT {_EVENT} FROM events e WHERE e.outgoing AND e.pos > ? AND e.pos <= ?{scope}"
        " ORDER BY e.pos LIMIT ?",
        [after, upto, *args, limit],
    )
    return [OutgoingEvent(*row) for row in rows]


def others(txn: Transaction, after: int, upto: int) -> Others:
    """What may be new in `after < pos <= upto` beside events: mostly nothing."""
    row = txn.one(
        "SELECT EXISTS (SELECT 1 FROM receipts WHERE pos > ? AND pos <= ?),"
        " EXISTS (SELECT 1 FROM device_updates WHERE pos > ? AND pos <= ?),"
        " EXISTS (SELECT 1 FROM outgoing_to_device WHERE pos > ? AND pos <= ?),"
        " EXISTS (SELECT 1 FROM sticky_events) AND EXISTS (SELECT 1 FROM membership_log"
        " WHERE pos > ? AND pos <= ? AND membership = 'join' AND previous <> 'join')",
        [after, upto] * 4,
    )
    return Others(*map(bool, row or (True, True, True, True)))


def events_at(txn: Transaction, positions: Collection[int]) -> list[OutgoingEvent]:
    """The events at these positions, in order."""
    if not positions:
        return []
    where, args = txn.any_of("e.pos", positions)
    rows = txn.all(f"SELECT {_EVENT} FROM events e WHERE {where} ORDER BY e.pos", args)
    return [OutgoingEvent(*row) for row in rows]


def sticky(
    txn: Transaction, own_suffix: str, room_nids: Collection[int], upto: int
) -> list[OutgoingEvent]:
    """Sticky events of users whose IDs end with `own_suffix` in these rooms, up to a position."""
    if not room_nids:
        return []
    where, args = txn.any_of("s.room_nid", room_nids)
    rows = txn.all(
        f"SELECT {_EVENT} FROM sticky_events s JOIN events e ON e.event_nid = s.event_nid"
        f" WHERE {where} AND s.pos <= ? ORDER BY s.pos",
        [*args, upto],
    )
    return [event for row in rows if (event := OutgoingEvent(*row)).sender.endswith(own_suffix)]


def sticky_rooms(txn: Transaction, after: int, upto: int) -> set[int]:
    """Rooms with sticky events that somebody entered in `after < pos <= upto`."""
    rows = txn.all(
        "SELECT DISTINCT l.room_nid FROM membership_log l WHERE l.pos > ? AND l.pos <= ?"
        " AND l.membership = 'join' AND l.previous <> 'join' AND EXISTS"
        " (SELECT 1 FROM sticky_events s WHERE s.room_nid = l.room_nid AND s.pos IS NOT NULL)",
        (after, upto),
    )
    return {row[0] for row in rows}


def rooms_of(txn: Transaction, server: str) -> set[int]:
    """The rooms that a server is in."""
    rows = txn.all("SELECT room_nid FROM room_servers WHERE server_name = ?", (server,))
    return {row[0] for row in rows}


def backlog(txn: Transaction, server: str, after: int, upto: int, limit: int) -> int:
    """How many events a server has missed, counted up to `limit`."""
    found: int = txn.value(
        "SELECT COUNT(*) FROM (SELECT 1 FROM events e WHERE e.outgoing AND e.pos > ?"
        f" AND e.pos <= ?{_IN_ROOMS_OF.format('e')} LIMIT ?) missed",
        (after, upto, server, limit),
    )
    return found


def newest(txn: Transaction, server: str, after: int, upto: int) -> list[int]:
    """The position of the newest event in each room of a server, the newest first."""
    rows = txn.all(
        "SELECT (SELECT e.pos FROM events e WHERE e.room_nid = r.room_nid AND e.outgoing"
        " AND e.pos > ? AND e.pos <= ? ORDER BY e.pos DESC LIMIT 1)"
        " FROM room_servers r WHERE r.server_name = ?",
        (after, upto, server),
    )
    return sorted((row[0] for row in rows if row[0] is not None), reverse=True)


def servers(txn: Transaction, room_nids: Collection[int]) -> dict[int, dict[str, int]]:
    """How many users other servers have in each of these rooms."""
    found: dict[int, dict[str, int]] = {room_nid: {} for room_nid in room_nids}
    if room_nids:
        where, args = txn.any_of("room_nid", room_nids)
        for room_nid, server_name, joined in txn.all(
            f"SELECT room_nid, server_name, joined FROM room_servers WHERE {where}", args
        ):
            found[room_nid][server_name] = joined
    return found


def moves(txn: Transaction, room_nids: Collection[int], after: int) -> list[Move]:
    """Who entered or left these rooms behind a position, the last first.

    Memberships that were only found out later, without an event at that position, are not moves.
    """
    if not room_nids:
        return []
    where, args = txn.any_of("l.room_nid", room_nids)
    rows = txn.all(
        "SELECT l.pos, l.room_nid, l.user_id, l.membership FROM membership_log l"
        f" JOIN events e ON e.event_nid = l.event_nid AND e.pos = l.pos WHERE {where}"
        " AND l.pos > ? AND l.membership <> l.previous"
        " AND (l.membership = 'join' OR l.previous = 'join') ORDER BY l.pos DESC",
        [*args, after],
    )
    return [Move(row[0], row[1], row[2], row[3] == "join") for row in rows]


def receipts(
    txn: Transaction, after: int, upto: int, limit: int, server: str | None = None
) -> list[OutgoingReceipt]:
    """Public receipts set in `after < pos <= upto`, in order."""
    scope, args = ("", []) if server is None else (" AND s.server_name = ?", [server])
    rows = txn.all(
        "SELECT c.pos, c.room_nid, r.room_id, c.user_id, c.thread_id, c.event_id, c.ts"
        " FROM receipts c JOIN rooms r ON r.room_nid = c.room_nid"
        " WHERE c.pos > ? AND c.pos <= ? AND c.type = 'm.read' AND EXISTS"
        f" (SELECT 1 FROM room_servers s WHERE s.room_nid = c.room_nid{scope})"
        " ORDER BY c.pos LIMIT ?",
        [after, upto, *args, limit],
    )
    return [OutgoingReceipt(*row) for row in rows]


def servers_around(
    txn: Transaction, user_ids: Collection[str], server: str | None = None
) -> dict[str, set[str]]:
    """Which other servers (or whether `server`) share a room with each of these users."""
    found: dict[str, set[str]] = {user_id: set() for user_id in user_ids}
    if not user_ids:
        return found
    where, args = txn.any_of("m.user_id", user_ids)
    scope, more = ("", []) if server is None else (" AND s.server_name = ?", [server])
    for user_id, server_name in txn.all(
        "SELECT DISTINCT m.user_id, s.server_name FROM memberships m"
        " JOIN room_servers s ON s.room_nid = m.room_nid"
        f" WHERE {where} AND m.membership = 'join'{scope}",
        [*args, *more],
    ):
        found[user_id].add(server_name)
    return found
