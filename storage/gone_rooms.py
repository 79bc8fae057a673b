"""Rooms that were removed, as far as clients still have to be told. Table `gone_rooms`.

Nothing else is left of such a room. A client whose token is older than a user's leave is told of
the leave.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class GoneRoom(NamedTuple):
    """A room that a user left before it was removed.

    Parameters: `room_nid`, the number that it had; `pos`, of the leave; `event`, JSON of its
    event, if there was one; `version`, the room's.
    """

    room_id: str
    room_nid: int
    pos: int
    event_id: str | None
    event: str | None
    version: str


def note(txn: Transaction, room_nid: int, pos: int) -> list[str]:
    """Keep what clients are to be told of a room that is about to be removed.

    Parameters: `pos`, of now, for users who are still in the room.

    Returns the users of this server who still are joined.
    """
    txn.execute(
        "INSERT INTO gone_rooms (user_id, room_id, room_nid, pos, event_id, event, version)"
        " SELECT m.user_id, r.room_id, r.room_nid,"
        " CASE WHEN m.membership IN ('leave', 'ban') THEN m.pos ELSE ? END,"
        " CASE WHEN m.membership IN ('leave', 'ban') THEN e.event_id END,"
        " CASE WHEN m.membership IN ('leave', 'ban') THEN e.json END, r.version"
        " FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid"
        " LEFT JOIN events e ON e.event_nid = m.event_nid"
        " WHERE m.room_nid = ? AND m.is_local"
        " ON CONFLICT (user_id, room_id) DO UPDATE SET pos = excluded.pos,"
        " room_nid = excluded.room_nid, event_id = excluded.event_id, event = excluded.event,"
        " version = excluded.version",
        (pos, room_nid),
    )
    rows = txn.all(
        "SELECT user_id FROM memberships WHERE room_nid = ? AND is_local"
        " AND membership NOT IN ('leave', 'ban')",
        (room_nid,),
    )
    return [row[0] for row in rows]


def of_user(txn: Transaction, user_id: str, after: int, upto: int) -> list[GoneRoom]:
    """Rooms that are gone for the user since a position, the first left first."""
    rows = txn.all(
        "SELECT room_id, room_nid, pos, event_id, event, version FROM gone_rooms"
        " WHERE user_id = ? AND pos > ? AND pos <= ? ORDER BY pos, room_id",
        (user_id, after, upto),
    )
    return [GoneRoom(*row) for row in rows]


def delete_all(txn: Transaction, user_id: str) -> None:
    """Nobody tells a user of a closed account."""
    txn.execute("DELETE FROM gone_rooms WHERE user_id = ?", (user_id,))
