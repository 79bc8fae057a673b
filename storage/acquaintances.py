"""Who shares rooms with whom: questions over `memberships` and `membership_log`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from storage.point_query import point_query
from storage.transaction import Transaction


@point_query(
    "SELECT 1 FROM memberships a JOIN memberships b ON b.room_nid = a.room_nid"
    " WHERE a.user_id = ? AND a.membership = 'join' AND b.user_id = ?"
    " AND b.membership = 'join' LIMIT 1",
    bool,
)
def share_room(user_id: str, other: str) -> Sequence[Any]:
    """Whether both are joined to one room."""
    return (user_id, other)


def sharing(
    txn: Transaction, user_id: str, among: Collection[str] | None = None, limit: int = 2000
) -> set[str]:
    """Users who are joined to a room together with the user: of these, or any.

    At most `limit`, whichever the database finds first. The user is one of them.
    """
    sql = (
        "SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b"
        " ON b.room_nid = a.room_nid AND b.membership = 'join'"
        " WHERE a.user_id = ? AND a.membership = 'join'"
    )
    args: list[object] = [user_id]
    if among is not None:
        where, more = txn.any_of("b.user_id", among)
        sql += f" AND {where}"
        args += more
    return {row[0] for row in txn.all(sql + " LIMIT ?", [*args, limit])}


def rooms_of(txn: Transaction, user_ids: Collection[str], limit: int) -> list[tuple[str, int]]:
    """Users, and rooms to which they are joined; at most `limit` of these pairs."""
    if not user_ids:
        return []
    where, args = txn.any_of("user_id", user_ids)
    sql = f"SELECT user_id, room_nid FROM memberships WHERE {where} AND membership = 'join' LIMIT ?"
    return [(row[0], row[1]) for row in txn.all(sql, [*args, limit])]


def rooms_by_size(
    txn: Transaction,
    user_ids: Collection[str],
    max_members: int,
    known: Mapping[int, bool],
    limit: int = 1000,
) -> dict[int, bool]:
    """Rooms to which one of the users is joined; whether at most so many local users are.

    `known`: what was found before. Of other rooms no more members are looked at than it takes.
    """
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(
        f"SELECT DISTINCT room_nid FROM memberships WHERE {where} AND membership = 'join' LIMIT ?",
        [*args, limit],
    )
    found = {nid: known.get(nid) for (nid,) in rows}
    unknown = [nid for nid, small in found.items() if small is None]
    small: set[int] = set()
    if unknown:
        where, args = txn.any_of("r.room_nid", unknown)
        rows = txn.all(
            f"SELECT r.room_nid FROM rooms r WHERE {where} AND (SELECT 1 FROM memberships m"
            " WHERE m.room_nid = r.room_nid AND m.membership = 'join' AND m.is_local"
            " LIMIT 1 OFFSET ?) IS NULL",
            [*args, max_members],
        )
        small = {row[0] for row in rows}
    return {nid: nid in small if was is None else was for nid, was in found.items()}
