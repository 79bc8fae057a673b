"""Rooms that this server is in, and what they say of other servers.

Reads `rooms`, `memberships`, `current_state` for many rooms at once: what other servers send names
rooms as it likes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from storage.point_query import point_query
from storage.transaction import Row, Transaction


class KnownRoom(NamedTuple):
    """A room of which this server knows."""

    room_nid: int
    room_id: str
    version: str
    is_here: bool
    """Whether a user of this server is joined."""


_LOCAL = (
    "EXISTS (SELECT 1 FROM memberships m WHERE m.room_nid = r.room_nid"
    " AND m.membership = 'join' AND m.is_local)"
)


def known_rooms(txn: Transaction, room_ids: Collection[str]) -> dict[str, KnownRoom]:
    """Those of these rooms that are known, by ID."""
    if not room_ids:
        return {}
    where, args = txn.any_of("r.room_id", room_ids)
    rows = txn.all(
        f"SELECT r.room_nid, r.room_id, r.version, CASE WHEN {_LOCAL} THEN 1 ELSE 0 END"
        f" FROM rooms r WHERE {where}",
        args,
    )
    return {row[1]: KnownRoom(row[0], row[1], row[2], bool(row[3])) for row in rows}


def access_lists(txn: Transaction, room_nids: Collection[int]) -> dict[int, str]:
    """JSON of the current `m.room.server_acl` event of each of these rooms that has one."""
    if not room_nids:
        return {}
    where, args = txn.any_of("c.room_nid", room_nids)
    rows = txn.all(
        "SELECT c.room_nid, e.json FROM current_state c JOIN events e ON e.event_nid = c.event_nid"
        f" WHERE {where} AND c.type = 'm.room.server_acl' AND c.state_key = ''",
        args,
    )
    return {row[0]: row[1] for row in rows}


class SeenRoom(NamedTuple):
    """What is asked of a room first when another server sends events of it."""

    room: KnownRoom
    access_list: str | None
    """JSON of the current `m.room.server_acl` event."""
    has_backlog: bool
    """Whether events of the server wait that were not tried yet: see `storage.received`."""
    answer: str | None
    """What the transaction that they come in was answered with before."""
    state_root: bytes | None
    """The root of the state in which the room is so."""


def _seen(rows: list[Row]) -> SeenRoom | None:
    for room_nid, room_id, version, is_here, access_list, has_backlog, answer, root in rows:
        room = KnownRoom(int(room_nid), room_id, version, bool(int(is_here)))
        return SeenRoom(room, access_list, bool(int(has_backlog)), answer, root)
    return None


@point_query(
    f"SELECT r.room_nid, r.room_id, r.version, CASE WHEN {_LOCAL} THEN 1 ELSE 0 END,"
    " (SELECT e.json FROM current_state c JOIN events e ON e.event_nid = c.event_nid"
    " WHERE c.room_nid = r.room_nid AND c.type = 'm.room.server_acl' AND c.state_key = ''),"
    " CASE WHEN EXISTS (SELECT 1 FROM staged_pdus s WHERE s.room_nid = r.room_nid"
    " AND s.origin = ? AND s.attempts = 0) THEN 1 ELSE 0 END,"
    " (SELECT t.answer FROM received_transactions t WHERE t.origin = ? AND t.txn_id = ?),"
    " r.state_root FROM rooms r WHERE r.room_id = ?",
    _seen,
    most=1,
)
def seen_room(origin: str, room_id: str, txn_id: str | None) -> Sequence[Any]:
    """A known room, as another server finds it, which sends events of it in a transaction; None if
    it is not known."""
    return (origin, origin, txn_id, room_id)


def joined(txn: Transaction, room_nid: int, user_ids: Collection[str]) -> set[str]:
    """Those of these users who are joined to the room."""
    if not user_ids:
        return set()
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(
        f"SELECT user_id FROM memberships WHERE room_nid = ? AND {where} AND membership = 'join'",
        [room_nid, *args],
    )
    return {row[0] for row in rows}


def others(txn: Transaction, room_nid: int) -> list[str]:
    """Users of other servers who are joined to the room."""
    rows = txn.all(
        "SELECT user_id FROM memberships WHERE room_nid = ? AND membership = 'join'"
        " AND NOT is_local",
        (room_nid,),
    )
    return [row[0] for row in rows]


def _first_column(rows: list[Row]) -> set[str]:
    return {row[0] for row in rows}


@point_query(
    "SELECT DISTINCT r.user_id FROM memberships r WHERE r.user_id = ANY(?)"
    f" AND r.membership = 'join' AND {_LOCAL}",
    _first_column,
    most=100,
)
def in_local_rooms(user_ids: list[str]) -> Sequence[Any]:
    """Those of these users who share a room with a user of this server."""
    return (user_ids,)
