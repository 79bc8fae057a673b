"""Who shares rooms with whom: questions over `memberships` and `membership_log`."""

from __future__ import annotations

from collections.abc import Collection

from storage.transaction import Transaction


def share_room(txn: Transaction, user_id: str, other: str) -> bool:
    """Whether both are joined to one room."""
    sql = (
        "SELECT 1 FROM memberships a JOIN memberships b ON b.room_nid = a.room_nid"
        " WHERE a.user_id = ? AND a.membership = 'join' AND b.user_id = ?"
        " AND b.membership = 'join' LIMIT 1"
    )
    return txn.one(sql, (user_id, other)) is not None


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


def small_rooms_of(
    txn: Transaction, user_ids: Collection[str], max_members: int, limit: int = 1000
) -> list[int]:
    """Rooms to which one of the users is joined and that have at most so many local members."""
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(
        "SELECT room_nid FROM memberships WHERE membership = 'join' AND is_local AND room_nid IN"
        f" (SELECT room_nid FROM memberships WHERE {where} AND membership = 'join' LIMIT ?)"
        " GROUP BY room_nid HAVING COUNT(*) <= ?",
        [*args, limit, max_members],
    )
    return [row[0] for row in rows]
