"""Which threads users follow. Table `thread_subscriptions`."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.transaction import Transaction


class Subscription(NamedTuple):
    """`pos` is that of the last change; an end of following is remembered too."""

    room_id: str
    thread_id: str
    pos: int
    subscribed: bool
    automatic: bool


_COLUMNS = ", ".join(Subscription._fields)


def get(txn: Transaction, user_id: str, room_id: str, thread_id: str) -> Subscription | None:
    """What a user said last of a thread."""
    row = txn.one(
        f"SELECT {_COLUMNS} FROM thread_subscriptions"
        f" WHERE user_id = ? AND room_id = ? AND thread_id = ?",
        (user_id, room_id, thread_id),
    )
    return _row(row) if row else None


def put(txn: Transaction, user_id: str, subscription: Subscription) -> None:
    """Record a change and tell the user's other clients."""
    txn.execute(
        f"INSERT INTO thread_subscriptions (user_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (user_id, room_id, thread_id) DO UPDATE SET pos = excluded.pos,"
        " subscribed = excluded.subscribed, automatic = excluded.automatic",
        (user_id, *subscription),
    )
    txn.notify(f"user:{user_id}")


def changes(
    txn: Transaction, user_id: str, after: int, upto: int, limit: int
) -> list[Subscription]:
    """Changes in `after < pos <= upto`: the newest `limit` of them, newest first."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM thread_subscriptions WHERE user_id = ? AND pos > ? AND pos <= ?"
        " ORDER BY pos DESC LIMIT ?",
        (user_id, after, upto, limit),
    )
    return [_row(row) for row in rows]


def count(txn: Transaction, user_id: str) -> int:
    """How many threads a user said anything of."""
    sql = "SELECT count(*) FROM thread_subscriptions WHERE user_id = ?"
    return int(txn.value(sql, (user_id,)))


def followers(txn: Transaction, room_nid: int) -> dict[str, str | None]:
    """Joined users of this server who ever said anything of any thread, with their display
    names in the room."""
    rows = txn.all(
        "SELECT m.user_id, m.displayname FROM memberships m WHERE m.room_nid = ?"
        " AND m.membership = 'join' AND m.is_local AND EXISTS"
        " (SELECT 1 FROM thread_subscriptions t WHERE t.user_id = m.user_id)",
        (room_nid,),
    )
    return dict(rows)


def followed(
    txn: Transaction, user_ids: Collection[str], room_id: str, thread_ids: Collection[str]
) -> set[tuple[str, str]]:
    """Which of these users follow which of these threads."""
    users, user_args = txn.any_of("user_id", user_ids)
    threads, thread_args = txn.any_of("thread_id", thread_ids)
    rows = txn.all(
        "SELECT user_id, thread_id FROM thread_subscriptions"
        f" WHERE {users} AND room_id = ? AND {threads} AND subscribed",
        [*user_args, room_id, *thread_args],
    )
    return {(row[0], row[1]) for row in rows}


def delete_all(txn: Transaction, user_id: str) -> None:
    """Forget everything of a user."""
    txn.execute("DELETE FROM thread_subscriptions WHERE user_id = ?", (user_id,))


def _row(row: tuple[str, str, int, bool, bool]) -> Subscription:
    room_id, thread_id, pos, subscribed, automatic = row
    return Subscription(room_id, thread_id, pos, bool(subscribed), bool(automatic))
