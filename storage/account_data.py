"""Account data of users, global (room ID "") and of rooms. Table `account_data`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from homeserver.core.types import JsonObject
from storage.errors import Conflict
from storage.point_query import point_query
from storage.transaction import Row, Transaction

GLOBAL = ""
"""In place of a room ID."""
NOBODY: frozenset[str] = frozenset()
DELETED = "{}"
"""The text of an item that was deleted (MSC3391): clients are told of it as of a change."""


class RoomItem(NamedTuple):
    """An item of account data of a room."""

    room_nid: int
    type: str
    content: JsonObject


def _item(rows: list[Row]) -> JsonObject | None:
    return _object(rows[0][0]) if rows else None


@point_query(
    "SELECT content FROM account_data WHERE user_id = ? AND room_id = ? AND type = ?", _item
)
def get(user_id: str, room_id: str, data_type: str) -> Sequence[Any]:
    """One item, or None."""
    return (user_id, room_id, data_type)


def get_versioned(
    txn: Transaction, user_id: str, room_id: str, data_type: str
) -> tuple[JsonObject, int] | None:
    """One item and the position of its last change, or None."""
    row = txn.one(
        "SELECT content, pos FROM account_data WHERE user_id = ? AND room_id = ? AND type = ?",
        (user_id, room_id, data_type),
    )
    return None if row is None else (_object(row[0]), row[1])


def replace(
    txn: Transaction,
    user_id: str,
    room_id: str,
    data_type: str,
    content: str,
    pos: int,
    old_pos: int | None,
) -> None:
    """As `put`, for an item that was computed from the old one, which `old_pos` names.

    Raises Conflict, which runs the transaction again, when that was changed meanwhile.
    """
    if old_pos is None:
        done = txn.execute(
            "INSERT INTO account_data (user_id, room_id, type, content, pos)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id, room_id, type) DO NOTHING",
            (user_id, room_id, data_type, content, pos),
        )
    else:
        done = txn.execute(
            "UPDATE account_data SET content = ?, pos = ?"
            " WHERE user_id = ? AND room_id = ? AND type = ? AND pos = ?",
            (content, pos, user_id, room_id, data_type, old_pos),
        )
    if not done:
        raise Conflict("account data changed meanwhile")


def put(
    txn: Transaction, user_id: str, room_id: str, data_type: str, content: str, pos: int
) -> None:
    """Set one item; `content` is the JSON text of an object."""
    txn.execute(
        "INSERT INTO account_data (user_id, room_id, type, content, pos) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = excluded.content,"
        " pos = excluded.pos",
        (user_id, room_id, data_type, content, pos),
    )


def count(txn: Transaction, user_id: str) -> int:
    """How many items the user has."""
    return int(txn.value("SELECT COUNT(*) FROM account_data WHERE user_id = ?", (user_id,)))


def has(txn: Transaction, user_id: str, room_id: str, data_type: str) -> bool:
    """Whether there is an item that was not deleted."""
    return txn.value(
        "SELECT content FROM account_data WHERE user_id = ? AND room_id = ? AND type = ?",
        (user_id, room_id, data_type),
    ) not in (None, DELETED)


def forget_deleted(txn: Transaction, user_id: str) -> None:
    """Forget that items were deleted, for those who have no room for more."""
    txn.execute("DELETE FROM account_data WHERE user_id = ? AND content = ?", (user_id, DELETED))


def delete_all(txn: Transaction, user_id: str) -> None:
    """Remove everything of a user."""
    txn.execute("DELETE FROM account_data WHERE user_id = ?", (user_id,))


def global_items(
    txn: Transaction, user_id: str, after: int | None, upto: int
) -> list[tuple[str, JsonObject]]:
    """Type and content of the global items changed in `after < pos <= upto`, those that were
    deleted with content `{}`; None: all that there are."""
    rows = txn.all(
        "SELECT type, content FROM account_data WHERE user_id = ? AND room_id = ''"
        f" AND pos > ? AND pos <= ?{_existing(after)} ORDER BY type",
        (user_id, -1 if after is None else after, upto),
    )
    return [(data_type, _object(text)) for data_type, text in rows]


def room_items(
    txn: Transaction,
    user_id: str,
    after: int | None,
    upto: int,
    room_nids: Collection[int] | None = None,
) -> list[RoomItem]:
    """As `global_items`, of rooms: of these, or of all."""
    sql = (
        "SELECT r.room_nid, a.type, a.content FROM account_data a"
        " JOIN rooms r ON r.room_id = a.room_id"
        f" WHERE a.user_id = ? AND a.room_id <> '' AND a.pos > ? AND a.pos <= ?{_existing(after)}"
    )
    args: list[object] = [user_id, -1 if after is None else after, upto]
    if room_nids is not None:
        where, more = txn.any_of("r.room_nid", room_nids)
        sql += f" AND {where}"
        args += more
    rows = txn.all(sql + " ORDER BY a.type", args)
    return [RoomItem(nid, data_type, _object(text)) for nid, data_type, text in rows]


def _existing(after: int | None) -> str:
    return f" AND content <> '{DELETED}'" if after is None else ""


def changed_rooms(txn: Transaction, user_id: str, after: int, upto: int) -> set[int]:
    """Rooms of which an item changed in `after < pos <= upto`."""
    rows = txn.all(
        "SELECT DISTINCT r.room_nid FROM account_data a JOIN rooms r ON r.room_id = a.room_id"
        " WHERE a.user_id = ? AND a.room_id <> '' AND a.pos > ? AND a.pos <= ?",
        (user_id, after, upto),
    )
    return {row[0] for row in rows}


def ignored_users(txn: Transaction, user_id: str) -> frozenset[str]:
    """Whom the user ignores (`m.ignored_user_list`; never the user)."""
    return ignored_by(user_id, get(txn, user_id, GLOBAL, "m.ignored_user_list"))


def ignored_by(user_id: str, content: JsonObject | None) -> frozenset[str]:
    """As `ignored_users`, from the content of the item."""
    ignored = content.get("ignored_users") if content else None
    # One object for all who ignore nobody: it is kept for each client that waits.
    if not isinstance(ignored, dict):
        return NOBODY
    return (frozenset(ignored) - {user_id}) or NOBODY


def _object(text: str) -> JsonObject:
    content: JsonObject = json.loads(text)
    return content


def ignored_by_users(txn: Transaction, user_ids: Collection[str]) -> dict[str, frozenset[str]]:
    """`ignored_users` of several; those who ignore nobody are left out."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(
        "SELECT user_id, content FROM account_data"
        f" WHERE {where} AND room_id = '' AND type = 'm.ignored_user_list'",
        args,
    )
    found = {user_id: ignored_by(user_id, _object(text)) for user_id, text in rows}
    return {user_id: ignored for user_id, ignored in found.items() if ignored}
