"""Who is in which room: the projection of current memberships and their log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from storage.point_query import point_query
from storage.transaction import Row, Transaction


class MembershipRow(NamedTuple):
    """A user's current membership of a room."""

    room_nid: int
    user_id: str
    membership: str
    event_id: str
    event_nid: int
    sender: str
    pos: int
    is_local: bool
    forgotten: bool
    displayname: str | None
    avatar_url: str | None
    stripped_state: str | None


class MembershipChange(NamedTuple):
    """An entry of the log of memberships."""

    pos: int
    room_nid: int
    user_id: str
    membership: str
    previous: str
    event_nid: int
    event_id: str
    sender: str


_MANY = 100
_COLUMNS = ", ".join(MembershipRow._fields)
_MARKS = ", ".join("?" * len(MembershipRow._fields))
_LOG = ", ".join(MembershipChange._fields)


def put(txn: Transaction, rows: Iterable[MembershipRow]) -> None:
    """Set current memberships.

    A room stays forgotten as long as the same event makes the membership: a state that did not
    have that event for some time may bring it back.
    """
    listed = list(rows)
    if len(listed) >= _MANY:
        # In the order of the primary key, whose index is quicker so.
        listed.sort(key=itemgetter(1))
        listed.sort(key=itemgetter(0))
        listed = _insert_new(txn, listed)
    names = [name for name in MembershipRow._fields[2:] if name != "forgotten"]
    updates = ", ".join(f"{name} = excluded.{name}" for name in names)
    updates += (
        ", forgotten = (excluded.forgotten"
        " OR (memberships.forgotten AND memberships.event_id = excluded.event_id))"
    )
    txn.many(
        f"INSERT INTO memberships ({_COLUMNS}) VALUES ({_MARKS})"
        f" ON CONFLICT (room_nid, user_id) DO UPDATE SET {updates}",
        listed,
    )


def _insert_new(txn: Transaction, rows: list[MembershipRow]) -> list[MembershipRow]:
    """Insert many that are new, as those of a room that is entered; the other ones are returned.

    Users of this server are among those, since their invites are not always noted under the lock
    of the room.
    """
    most = len(rows) // 2
    known: set[tuple[int, str]] = set()
    for room_nid in {row.room_nid for row in rows}:
        found = txn.all(
            "SELECT user_id FROM memberships WHERE room_nid = ? LIMIT ?", (room_nid, most)
        )
        if len(found) == most:
            return rows
        known.update((room_nid, user_id) for (user_id,) in found)
    new, others = [], []
    for row in rows:
        if row.is_local or (known and row[:2] in known):
            others.append(row)
        else:
            new.append(row)
    # Without ON CONFLICT PostgreSQL takes them by COPY.
    txn.many(f"INSERT INTO memberships ({_COLUMNS}) VALUES ({_MARKS})", new)
    return others


def vanish(txn: Transaction, room_nid: int, user_ids: Collection[str], pos: int) -> None:
    """These users are no members any more, from a position on, though no event says so."""
    if user_ids:
        where, args = txn.any_of("user_id", user_ids)
        txn.execute(
            "UPDATE memberships SET membership = 'leave', pos = ?, stripped_state = NULL"
            f" WHERE room_nid = ? AND {where}",
            [pos, room_nid, *args],
        )


def log(txn: Transaction, rows: Iterable[MembershipChange]) -> None:
    """Note changes of memberships."""
    txn.many(f"INSERT INTO membership_log ({_LOG}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def get(txn: Transaction, room_nid: int, user_id: str) -> MembershipRow | None:
    """The user's current membership of the room."""
    raw = txn.one(
        f"SELECT {_COLUMNS} FROM memberships WHERE room_nid = ? AND user_id = ?",
        (room_nid, user_id),
    )
    return MembershipRow(*raw) if raw else None


def _number(rows: list[Row]) -> int | None:
    return rows[0][0] if rows else None


@point_query(
    "SELECT m.room_nid FROM rooms r JOIN memberships m ON m.room_nid = r.room_nid"
    " WHERE r.room_id = ? AND m.user_id = ? AND m.membership = 'join'",
    _number,
)
def joined_number(room_id: str, user_id: str) -> Sequence[Any]:
    """The number of a room if the user is in it."""
    return (room_id, user_id)


def _numbers(rows: list[Row]) -> tuple[int, list[int]]:
    return rows[0][0], [room_nid for _, room_nid in rows if room_nid is not None]


@point_query(
    "SELECT c.pos, m.room_nid FROM clock c"
    " LEFT JOIN memberships m ON m.user_id = ? AND m.membership = 'join'",
    _numbers,
    most=500,
)
def joined_rooms(user_id: str) -> Sequence[Any]:
    """A position of the clock, and the numbers of the rooms that a user is in then."""
    return (user_id,)


def _ids(rows: list[Row]) -> list[str]:
    return [row[0] for row in rows]


@point_query(
    "SELECT r.room_id FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid"
    " WHERE m.user_id = ? AND m.membership = 'join'",
    _ids,
    most=200,
)
def joined_room_ids(user_id: str) -> Sequence[Any]:
    """The IDs of the rooms that a user is in."""
    return (user_id,)


def get_many(
    txn: Transaction, room_nid: int, user_ids: Collection[str]
) -> dict[str, MembershipRow]:
    """Current memberships of several users of one room."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM memberships WHERE room_nid = ? AND {where}", [room_nid, *args]
    )
    return {raw[1]: MembershipRow(*raw) for raw in rows}


def of_user(
    txn: Transaction, user_id: str, memberships: Collection[str] | None = None
) -> list[MembershipRow]:
    """All rooms of a user, or those with one of these memberships."""
    sql = f"SELECT {_COLUMNS} FROM memberships WHERE user_id = ?"
    args: list[object] = [user_id]
    if memberships is not None:
        where, more = txn.any_of("membership", memberships)
        sql += f" AND {where}"
        args += more
    return [MembershipRow(*raw) for raw in txn.all(sql, args)]


def of_user_in(txn: Transaction, user_id: str, room_nids: Collection[int]) -> list[MembershipRow]:
    """The user's memberships of these rooms."""
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM memberships WHERE {where} AND user_id = ?", [*args, user_id]
    )
    return [MembershipRow(*raw) for raw in rows]


def of_room(
    txn: Transaction, room_nid: int, memberships: Collection[str] | None = None
) -> list[MembershipRow]:
    """All members of a room, or those with one of these memberships."""
    sql = f"SELECT {_COLUMNS} FROM memberships WHERE room_nid = ?"
    args: list[object] = [room_nid]
    if memberships is not None:
        where, more = txn.any_of("membership", memberships)
        sql += f" AND {where}"
        args += more
    return [MembershipRow(*raw) for raw in txn.all(sql, args)]


def joined_profiles(txn: Transaction, room_nid: int) -> list[tuple[str, str | None, str | None]]:
    """User IDs of those who are joined to a room, with their display names and avatars there."""
    rows: list[Any] = txn.all(
        "SELECT user_id, displayname, avatar_url FROM memberships"
        " WHERE room_nid = ? AND membership = 'join'",
        (room_nid,),
    )
    return rows


def local_joined(txn: Transaction, room_nid: int) -> list[str]:
    """User IDs of this server's users who are joined to the room."""
    rows = txn.all(
        "SELECT user_id FROM memberships WHERE room_nid = ? AND membership = 'join' AND is_local",
        (room_nid,),
    )
    return [row[0] for row in rows]


def shared_rooms(txn: Transaction, user_id: str, other: str) -> list[int]:
    """Numbers of the rooms that both users are joined to, in order."""
    rows = txn.all(
        "SELECT a.room_nid FROM memberships a JOIN memberships b ON b.room_nid = a.room_nid"
        " WHERE a.user_id = ? AND a.membership = 'join'"
        " AND b.user_id = ? AND b.membership = 'join' ORDER BY a.room_nid",
        (user_id, other),
    )
    return [row[0] for row in rows]


def counts(txn: Transaction, room_nid: int) -> dict[str, int]:
    """How many users have each membership of the room."""
    rows = txn.all(
        "SELECT membership, COUNT(*) FROM memberships WHERE room_nid = ? GROUP BY membership",
        (room_nid,),
    )
    return {row[0]: row[1] for row in rows}


def forget(txn: Transaction, room_nid: int, user_id: str) -> None:
    """Mark the room as forgotten by the user."""
    txn.execute(
        "UPDATE memberships SET forgotten = ? WHERE room_nid = ? AND user_id = ?",
        (True, room_nid, user_id),
    )


def changes_of_user(
    txn: Transaction, user_id: str, after: int, upto: int
) -> list[MembershipChange]:
    """The user's changes of membership in `after < pos <= upto`, oldest first."""
    rows = txn.all(
        f"SELECT {_LOG} FROM membership_log WHERE user_id = ? AND pos > ? AND pos <= ?"
        " ORDER BY pos",
        (user_id, after, upto),
    )
    return [MembershipChange(*raw) for raw in rows]


def changes_of_room(
    txn: Transaction, room_nid: int, after: int, upto: int
) -> list[MembershipChange]:
    """Changes of membership of a room in `after < pos <= upto`, oldest first."""
    rows = txn.all(
        f"SELECT {_LOG} FROM membership_log WHERE room_nid = ? AND pos > ? AND pos <= ?"
        " ORDER BY pos",
        (room_nid, after, upto),
    )
    return [MembershipChange(*raw) for raw in rows]


def at(txn: Transaction, room_nid: int, user_id: str, pos: int) -> MembershipChange | None:
    """The user's last change of membership of a room up to a position."""
    raw = txn.one(
        f"SELECT {_LOG} FROM membership_log WHERE room_nid = ? AND user_id = ? AND pos <= ?"
        " ORDER BY pos DESC LIMIT 1",
        (room_nid, user_id, pos),
    )
    return MembershipChange(*raw) if raw else None


def clear_profile(txn: Transaction, room_nid: int, event_nid: int) -> None:
    """Forget the names that a redacted member event gave."""
    txn.execute(
        "UPDATE memberships SET displayname = NULL, avatar_url = NULL"
        " WHERE room_nid = ? AND event_nid = ?",
        (room_nid, event_nid),
    )


def last_stay(txn: Transaction, room_nid: int, user_id: str) -> tuple[int | None, int | None]:
    """Positions of the user's last join and of what ended that stay; None for "not (yet)"."""
    until = None
    for pos, membership in txn.all(
        "SELECT pos, membership FROM membership_log WHERE room_nid = ? AND user_id = ?"
        " AND membership <> previous AND (membership = 'join' OR previous = 'join')"
        " ORDER BY pos DESC LIMIT 2",
        (room_nid, user_id),
    ):
        if membership == "join":
            return pos, until
        until = pos
    return None, None


def first_others(
    txn: Transaction, room_nid: int, user_id: str, wanted: Collection[str], limit: int
) -> list[str]:
    """Other users with one of these memberships, the longest unchanged first."""
    where, args = txn.any_of("membership", wanted)
    rows = txn.all(
        f"SELECT user_id FROM memberships WHERE room_nid = ? AND {where} AND user_id <> ?"
        " ORDER BY pos LIMIT ?",
        [room_nid, *args, user_id, limit],
    )
    return [row[0] for row in rows]


def of_server(txn: Transaction, room_nid: int, server_name: str) -> list[str]:
    """Users of a server with any membership of a room: those joined first, the longest unchanged
    of them first."""
    rows = txn.all(
        "SELECT user_id FROM memberships WHERE room_nid = ? AND user_id LIKE ?"
        " ORDER BY CASE membership WHEN 'join' THEN 0 ELSE 1 END, pos",
        (room_nid, f"%:{server_name}"),
    )
    # LIKE ignores case on SQLite, and a port may look like the end of another name.
    return [row[0] for row in rows if row[0].partition(":")[2] == server_name]


def invites_sent(txn: Transaction, user_id: str, since_ts: int) -> int:
    """How many invites a user has sent since a time."""
    sql = (
        "SELECT count(*) FROM membership_log m JOIN events e ON e.event_nid = m.event_nid"
        " WHERE m.sender = ? AND m.membership = 'invite' AND e.origin_server_ts >= ?"
    )
    return int(txn.value(sql, (user_id, since_ts)))


def rooms_joined(txn: Transaction, user_id: str, since_ts: int) -> int:
    """How many rooms a user has joined since a time, whether they left them or not."""
    sql = (
        "SELECT count(DISTINCT m.room_nid) FROM membership_log m"
        " JOIN events e ON e.event_nid = m.event_nid"
        " WHERE m.user_id = ? AND m.membership = 'join' AND m.previous <> 'join'"
        " AND e.origin_server_ts >= ?"
    )
    return int(txn.value(sql, (user_id, since_ts)))
