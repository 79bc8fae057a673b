"""What is new for one user, in as few statements as possible.

`/sync` asks this first, and then only for what has news. It reads the tables of other modules,
because with PostgreSQL the number of statements is what an answer costs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from storage.point_query import point_query
from storage.rooms import COLUMNS, RoomRow, from_row
from storage.transaction import Row, Transaction


class Newest(NamedTuple):
    """Positions of the newest that concerns a user, of each kind; None: there is nothing."""

    now: int
    """The clock."""
    membership: int | None
    """Of the user's changes of membership."""
    gone: int | None
    """Of the rooms that were removed after the user had left them."""
    anybodys_membership: int | None
    """Of all users' changes of membership, in any room."""
    account_data: int | None
    push_rules: int | None
    own_receipt: int | None
    anybodys_devices: int | None
    first_message: int | None
    """The oldest message that waits for the device."""
    ignored: str | None
    """No position: the content of `m.ignored_user_list`."""
    one_time_keys: str | None
    """No position: how many one-time keys the device has, JSON by algorithm."""
    unused_fallback: str | None
    """No position: JSON list of the algorithms of fallback keys that were not given out."""
    sticky: int | None
    """Of sticky events, in any room."""
    profiles: int | None
    """Of changes of local users' profiles."""
    anybodys_receipt: int | None


def _last(rows: str) -> str:
    # Not MAX(pos), which PostgreSQL plans in two ways to choose from.
    return f"(SELECT pos FROM {rows} ORDER BY pos DESC LIMIT 1)"


def _key_counts(column: str) -> str:
    return f"(SELECT {column} FROM one_time_key_counts WHERE user_id = ? AND device_id = ?)"


def _newest(rows: list[Row]) -> Newest:
    (raw,) = rows
    return Newest(*raw)


@point_query(
    "SELECT pos,"
    f" {_last('membership_log WHERE user_id = ?')},"
    f" {_last('gone_rooms WHERE user_id = ?')},"
    f" {_last('membership_log')},"
    f" {_last('account_data WHERE user_id = ?')},"
    " (SELECT pos FROM push_rules WHERE user_id = ?),"
    f" {_last('receipts WHERE user_id = ?')},"
    f" {_last('device_list_changes')},"
    " (SELECT pos FROM to_device_messages WHERE user_id = ? AND device_id = ?"
    " ORDER BY pos LIMIT 1),"
    " (SELECT content FROM account_data WHERE user_id = ? AND room_id = ''"
    " AND type = 'm.ignored_user_list'),"
    f" {_key_counts('counts')}, {_key_counts('unused_fallback')},"
    # Without the condition, PostgreSQL has what is NULL first.
    f" {_last('sticky_events WHERE pos IS NOT NULL')}, {_last('profile_changes')},"
    f" {_last('receipts')}"
    " FROM clock",
    _newest,
)
def newest(user_id: str, device_id: str) -> Sequence[Any]:
    """The newest of everything but rooms."""
    return (user_id,) * 6 + (device_id, user_id) + (user_id, device_id) * 2


def is_after(pos: int | None, since: int | None) -> bool:
    """Whether there is news: something newer than `since`, or anything if that is None."""
    return since is None or (pos is not None and pos > since)


class JoinedRoom(NamedTuple):
    """A room that the user is in."""

    room_id: str
    last_pos: int
    """The position of its newest event."""
    last_receipt: int | None
    """The position of its newest receipt."""


_RECEIPT = _last("receipts c WHERE c.room_nid = r.room_nid")


def joined_rooms(txn: Transaction, user_id: str) -> dict[int, JoinedRoom]:
    """The rooms that the user is joined to, by number."""
    rows = txn.all(
        f"SELECT m.room_nid, r.room_id, r.last_pos, {_RECEIPT} FROM memberships m"
        " JOIN rooms r ON r.room_nid = m.room_nid WHERE m.user_id = ? AND m.membership = 'join'",
        (user_id,),
    )
    return {raw[0]: JoinedRoom(*raw[1:]) for raw in rows}


class RoomThen(NamedTuple):
    """A room, and what of it a client knows that has a token."""

    row: RoomRow
    old_root: bytes | None
    """The root of its state at the token."""
    joined_at: int | None
    """The position of the user's last join (not of a change of name)."""
    last_break: int | None
    """The last position before which something is missing: see `storage.gaps`."""
    content_version: int = 0
    """See `storage.rooms.contents_changed`."""


_ROOM = ", ".join("r." + column for column in COLUMNS.split(", "))


_THEN = (
    "(SELECT s.root FROM room_states s WHERE s.room_nid = r.room_nid AND s.pos <= ?"
    " ORDER BY s.pos DESC LIMIT 1),"
    " (SELECT l.pos FROM membership_log l WHERE l.room_nid = r.room_nid AND l.user_id = ?"
    " AND l.membership = 'join' AND l.previous <> 'join' ORDER BY l.pos DESC LIMIT 1),"
    f" {_last('timeline_breaks b WHERE b.room_nid = r.room_nid')},"
    f" r.content_version, {_ROOM}"
)


class NewsOfRoom(NamedTuple):
    """A room of the user in which something is new."""

    joined: JoinedRoom
    then: RoomThen


def joined_with_news(
    txn: Transaction, user_id: str, since: int, *, receipts: bool
) -> dict[int, NewsOfRoom]:
    """Those of the rooms that the user is joined to that have new events or receipts, by number.

    Parameters: `receipts`, False if it is known that there are no new ones.
    """
    news, more = "r.last_pos > ?", [since]
    if receipts:
        # A look into each room, for which there is no better way once some room has any.
        news, more = f"(r.last_pos > ? OR {_RECEIPT} > ?)", [since, since]
    rows = txn.all(
        f"SELECT r.room_id, r.last_pos, {_RECEIPT}, {_THEN} FROM memberships m"
        " JOIN rooms r ON r.room_nid = m.room_nid"
        f" WHERE m.user_id = ? AND m.membership = 'join' AND {news}",
        [since, user_id, user_id, *more],
    )
    found = {}
    for raw in rows:
        row = from_row(raw[7:])
        found[row.room_nid] = NewsOfRoom(JoinedRoom(*raw[:3]), RoomThen(row, *raw[3:7]))
    return found


def rooms_since(
    txn: Transaction, user_id: str, room_nids: Collection[int], since: int | None
) -> dict[int, RoomThen]:
    """Rooms of the user, by number, with what was there at `since`."""
    if not room_nids:
        return {}
    where, args = txn.any_of("r.room_nid", room_nids)
    rows = txn.all(
        f"SELECT {_THEN} FROM rooms r WHERE {where}",
        [-1 if since is None else since, user_id, *args],
    )
    found = (RoomThen(from_row(raw[4:]), *raw[:4]) for raw in rows)
    return {room.row.room_nid: room for room in found}
