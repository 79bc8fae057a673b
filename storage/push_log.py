"""What became of pushes: why somebody was told, or was not. Table `push_log`.

One row for each event and pusher, however often it was tried. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from storage.pushers import PusherRow
from storage.transaction import Transaction

MAX_DETAIL = 300


class Entry(NamedTuple):
    """A row. `storage/schema/0027_push.sql` explains the columns."""

    user_id: str
    pusher_nid: int
    pos: int
    app_id: str
    pushkey: str
    kind: str
    room_nid: int | None
    event_id: str | None
    outcome: str
    detail: str
    attempts: int
    first_ts: int
    last_ts: int


_COLUMNS = ", ".join(Entry._fields)


def entry(
    pusher: PusherRow,
    pos: int,
    outcome: str,
    now: int,
    *,
    detail: str = "",
    room_nid: int | None = None,
    event_id: str | None = None,
) -> Entry:
    """A row about an attempt that was just made."""
    told = detail.replace("\x00", "").encode("utf-8", "replace").decode()[:MAX_DETAIL]
    where = (pusher.user_id, pusher.pusher_nid, pos, pusher.app_id, pusher.pushkey, pusher.kind)
    return Entry(*where, room_nid, event_id, outcome, told, 1, now, now)


def note(txn: Transaction, entries: Iterable[Entry]) -> None:
    """Write down what became of pushes; a row that is there counts one attempt more."""
    txn.many(
        f"INSERT INTO push_log ({_COLUMNS}) VALUES ({', '.join('?' * len(Entry._fields))})"
        " ON CONFLICT (user_id, pusher_nid, pos) DO UPDATE SET outcome = excluded.outcome,"
        " detail = excluded.detail, attempts = push_log.attempts + 1, last_ts = excluded.last_ts,"
        " event_id = COALESCE(excluded.event_id, push_log.event_id)",
        entries,
    )


def of_user(txn: Transaction, user_id: str, limit: int) -> list[Entry]:
    """The newest rows about a user, the newest first."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM push_log WHERE user_id = ? ORDER BY last_ts DESC, pos DESC"
        " LIMIT ?",
        (user_id, limit),
    )
    return [Entry(*raw) for raw in rows]


def prune(txn: Transaction, before: int, limit: int) -> int:
    """Remove rows that are older than a time; how many."""
    return txn.execute(
        "DELETE FROM push_log WHERE (user_id, pusher_nid, pos) IN"
        " (SELECT user_id, pusher_nid, pos FROM push_log WHERE last_ts < ? LIMIT ?)",
        (before, limit),
    )


def delete_all(txn: Transaction, user_id: str) -> None:
    """Remove everything about a user."""
    txn.execute("DELETE FROM push_log WHERE user_id = ?", (user_id,))
