"""What changed lately, for those who may have missed hints: rooms and users among given ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.transaction import Transaction


class News(NamedTuple):
    """Rooms in which, and users for whom, something happened."""

    rooms: set[int]
    users: set[str]


_OF_ROOMS = (
    "SELECT room_nid FROM rooms WHERE {} AND last_pos > ?",
    "SELECT DISTINCT room_nid FROM receipts WHERE {} AND pos > ?",
    "SELECT DISTINCT m.room_nid FROM memberships m JOIN device_list_changes c"
    " ON c.user_id = m.user_id WHERE m.{} AND m.membership = 'join' AND c.pos > ?",
)
_OF_USERS = (
    "SELECT DISTINCT user_id FROM membership_log WHERE {} AND pos > ?",
    "SELECT DISTINCT user_id FROM receipts WHERE {} AND pos > ?",
    "SELECT DISTINCT user_id FROM account_data WHERE {} AND pos > ?",
    "SELECT user_id FROM push_rules WHERE {} AND pos > ?",
    "SELECT DISTINCT user_id FROM to_device_messages WHERE {} AND pos > ?",
    "SELECT DISTINCT user_id FROM device_list_changes WHERE {} AND pos > ?",
)


def since(
    txn: Transaction, after: int, room_nids: Collection[int], user_ids: Collection[str]
) -> News:
    """Those of the rooms and users with something newer than a position."""
    news = News(set(), set())
    for statements, column, wanted, found in (
        (_OF_ROOMS, "room_nid", room_nids, news.rooms),
        (_OF_USERS, "user_id", user_ids, news.users),
    ):
        if wanted:
            where, args = txn.any_of(column, wanted)
            for statement in statements:
                found.update(row[0] for row in txn.all(statement.format(where), [*args, after]))
    return news
