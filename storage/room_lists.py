"""All rooms, for lists of administrators. Reads tables of other modules."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.transaction import Transaction

_EXACT_UP_TO = 1_000_000
"""Events. Sizes of more than that are estimated."""
_SIZED = ("events", "state_nodes", "memberships", "membership_log", "current_state", "receipts")


class ListedRoom(NamedTuple):
    """A room that this server was in."""

    room_nid: int
    room_id: str
    version: str


class Members(NamedTuple):
    """How many users are in a room, and how many of them are this server's."""

    joined: int = 0
    local: int = 0


def known(txn: Transaction) -> list[ListedRoom]:
    """The rooms that this server is or was in."""
    rows = txn.all("SELECT room_nid, room_id, version FROM rooms WHERE state_root IS NOT NULL")
    return [ListedRoom(*row) for row in rows]


def state_of_all(txn: Transaction, event_type: str) -> dict[int, str]:
    """JSON of the current state event of a type and an empty key, by room."""
    rows = txn.all(
        "SELECT c.room_nid, e.json FROM current_state c JOIN events e ON e.event_nid = c.event_nid"
        " WHERE c.type = ? AND c.state_key = ''",
        (event_type,),
    )
    return dict(rows)


def states(
    txn: Transaction, room_nids: Collection[int], types: Collection[str]
) -> dict[int, dict[str, str]]:
    """JSON of current state events of these types and an empty key, by room and type."""
    found: dict[int, dict[str, str]] = {number: {} for number in room_nids}
    if room_nids:
        where, args = txn.any_of("c.room_nid", room_nids)
        which, more = txn.any_of("c.type", types)
        for room_nid, event_type, text in txn.all(
            "SELECT c.room_nid, c.type, e.json FROM current_state c"
            f" JOIN events e ON e.event_nid = c.event_nid WHERE {where} AND {which}"
            " AND c.state_key = ''",
            [*args, *more],
        ):
            found[room_nid][event_type] = text
    return found


def members(txn: Transaction) -> dict[int, Members]:
    """How many are in each room that anybody is in."""
    rows = txn.all(
        "SELECT room_nid, COUNT(*), SUM(CASE WHEN is_local THEN 1 ELSE 0 END) FROM memberships"
        " WHERE membership = 'join' GROUP BY room_nid"
    )
    return {row[0]: Members(int(row[1]), int(row[2])) for row in rows}


def members_of(txn: Transaction, room_nids: Collection[int]) -> dict[int, Members]:
    """How many are in each of these rooms."""
    found = dict.fromkeys(room_nids, Members())
    if room_nids:
        where, args = txn.any_of("room_nid", room_nids)
        for row in txn.all(
            "SELECT room_nid, COUNT(*), SUM(CASE WHEN is_local THEN 1 ELSE 0 END)"
            f" FROM memberships WHERE membership = 'join' AND {where} GROUP BY room_nid",
            args,
        ):
            found[row[0]] = Members(int(row[1]), int(row[2]))
    return found


def state_counts(txn: Transaction, room_nids: Collection[int] | None = None) -> dict[int, int]:
    """How many state events each room has: of these, or of all."""
    where, args = ("1 = 1", []) if room_nids is None else txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT room_nid, COUNT(*) FROM current_state WHERE {where} GROUP BY room_nid", args
    )
    return {row[0]: int(row[1]) for row in rows}


def published(txn: Transaction) -> set[int]:
    """The rooms on the public list."""
    return {row[0] for row in txn.all("SELECT room_nid FROM published_rooms")}


def local_devices(txn: Transaction, room_nid: int) -> int:
    """How many devices the users of this server have who are in a room."""
    found: int = txn.value(
        "SELECT COUNT(*) FROM memberships m JOIN devices d ON d.user_id = m.user_id"
        " WHERE m.room_nid = ? AND m.membership = 'join' AND m.is_local",
        (room_nid,),
    )
    return found


def is_forgotten(txn: Transaction, room_nid: int) -> bool:
    """Whether no user of this server remembers a room."""
    sql = "SELECT 1 FROM memberships WHERE room_nid = ? AND is_local AND NOT forgotten LIMIT 1"
    return txn.one(sql, (room_nid,)) is None


def largest(txn: Transaction, limit: int) -> list[tuple[str, int]]:
    """IDs and sizes (bytes) of the rooms that take the most space in the database.

    PostgreSQL's statistics tell it of large databases, roughly.
    """
    if txn.dialect.name == "postgres":
        estimate = txn.value("SELECT reltuples FROM pg_class WHERE relname = 'events'")
        if (estimate or 0) > _EXACT_UP_TO:
            return _estimated(txn, limit)
    rows = txn.all(
        "SELECT r.room_id, COALESCE(e.size, 0) + COALESCE(n.size, 0) AS total FROM rooms r"
        " LEFT JOIN (SELECT room_nid, SUM(LENGTH(json)) AS size FROM events GROUP BY room_nid) e"
        " ON e.room_nid = r.room_nid"
        " LEFT JOIN (SELECT room_nid, SUM(LENGTH(body)) AS size FROM state_nodes"
        " GROUP BY room_nid) n ON n.room_nid = r.room_nid ORDER BY total DESC, r.room_id LIMIT ?",
        (limit,),
    )
    return [(row[0], int(row[1])) for row in rows]


def _estimated(txn: Transaction, limit: int) -> list[tuple[str, int]]:
    sizes: dict[int, float] = {}
    for table in _SIZED:
        for nid, size in txn.all(
            "SELECT unnest(most_common_vals::text::bigint[]),"
            " unnest(most_common_freqs) * pg_total_relation_size(?::regclass) FROM pg_stats"
            " WHERE tablename = ? AND attname = 'room_nid' AND most_common_vals IS NOT NULL",
            (table, table),
        ):
            sizes[nid] = sizes.get(nid, 0.0) + float(size)
    order = sorted(sizes, key=lambda nid: -sizes[nid])[:limit]
    where, args = txn.any_of("room_nid", order)
    rows = txn.all(f"SELECT room_nid, room_id FROM rooms WHERE {where}", args)
    names: dict[int, str] = {row[0]: row[1] for row in rows}
    return [(names[nid], int(sizes[nid])) for nid in order if nid in names]
