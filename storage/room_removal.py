"""Removing all rows of a room, table by table, in small parts.

Owners of the tables are their own modules. `BY_NUMBER` and `BY_ID` are all tables that refer to
rooms, apart from those in `KEPT`.
"""

from __future__ import annotations

from typing import NamedTuple

from storage import message_words
from storage.transaction import Transaction


class Table(NamedTuple):
    """A table with rows of rooms; `key`, its columns that tell rows of one room apart."""

    name: str
    key: tuple[str, ...]


BY_NUMBER = (
    Table("memberships", ("user_id",)),
    Table("membership_log", ("pos",)),
    Table("current_state", ("type", "state_key")),
    Table("notify_marks", ("user_id", "pos")),
    Table("receipts", ("user_id", "type", "thread_id")),
    Table("room_servers", ("server_name",)),
    Table("room_states", ("pos",)),
    Table("state_nodes", ("hash",)),
    Table("auth_packs", ("first_nid",)),
    Table("staged_pdus", ("event_id",)),
    Table("event_gaps", ("event_id", "successor")),
    Table("timeline_breaks", ("pos",)),
    Table("media_references", ("server_name", "media_id", "event_nid")),
    Table("push_queue", ("pusher_nid", "pos")),
    Table("push_log", ("user_id", "pusher_nid", "pos")),
    Table("sticky_events", ("event_nid",)),
    Table("aliases", ("alias",)),
    Table("published_rooms", ("room_nid",)),
    Table("published_networks", ("instance_id",)),
    Table("open_rooms", ("room_nid",)),
    Table("partial_rooms", ("room_nid",)),
)
"""Tables with a column `room_nid`. `events` and `message_words` are removed together."""

BY_ID = (
    Table("account_data", ("user_id", "type")),
    Table("delayed_events", ("delay_id",)),
    Table("thread_subscriptions", ("user_id", "thread_id")),
    Table("notice_rooms", ("user_id",)),
    Table("reports", ("report_id",)),
)
"""Tables with a column `room_id`."""

BY_EVENT = ("sticky_events", "redacted_contents", "media_references")
"""Tables with a column `event_nid` that say more of events."""

KEPT = ("blocked_rooms", "room_tasks", "gone_rooms", "backed_up_keys")
"""Tables that keep their rows: what the administrator said of the room, and what users have in
their key backups, which is theirs."""


def delete_some(txn: Transaction, table: Table, column: str, value: object, limit: int) -> int:
    """Delete up to so many rows of a room; how many there were."""
    key = ", ".join(table.key)
    return txn.execute(
        f"DELETE FROM {table.name} WHERE {column} = ? AND ({key}) IN"
        f" (SELECT {key} FROM {table.name} WHERE {column} = ? LIMIT ?)",
        (value, value, limit),
    )


def delete_events(txn: Transaction, room_nid: int, limit: int) -> int:
    """Delete up to so many events of a room, and what hangs on them; how many there were."""
    rows = txn.all(
        "SELECT event_nid, event_id, pos FROM events WHERE room_nid = ? LIMIT ?", (room_nid, limit)
    )
    if not rows:
        return 0
    message_words.remove_many(txn, [row[0] for row in rows])
    names = [row[1] for row in rows]
    for column in ("redaction_id", "redacts"):
        where, args = txn.any_of(column, names)
        txn.execute(f"DELETE FROM pending_redactions WHERE {where}", args)
    where, args = txn.any_of("pos", [row[2] for row in rows if row[2] is not None])
    txn.execute(f"DELETE FROM destination_events WHERE {where}", args)
    where, args = txn.any_of("event_nid", [row[0] for row in rows])
    for name in BY_EVENT:
        txn.execute(f"DELETE FROM {name} WHERE {where}", args)
    return txn.execute(f"DELETE FROM events WHERE {where}", args)


def behead(txn: Transaction, room_nid: int) -> None:
    """Leave of a room what is known of one that nobody here ever was in."""
    txn.execute(
        "UPDATE rooms SET head_version = head_version + 1, depth = 0, extremities = '[]',"
        " state_root = NULL, remote_servers = 0, content_version = content_version + 1"
        " WHERE room_nid = ?",
        (room_nid,),
    )
    for name in ("aliases", "published_rooms", "published_networks", "open_rooms"):
        txn.execute(f"DELETE FROM {name} WHERE room_nid = ?", (room_nid,))
    txn.execute("DELETE FROM memberships WHERE room_nid = ? AND is_local", (room_nid,))


def delete_rest(txn: Transaction, room_nid: int, room_id: str) -> None:
    """Delete what came meanwhile, and the room. Everything else is gone already."""
    for table in BY_NUMBER:
        txn.execute(f"DELETE FROM {table.name} WHERE room_nid = ?", (room_nid,))
    for table in BY_ID:
        txn.execute(f"DELETE FROM {table.name} WHERE room_id = ?", (room_id,))
    while delete_events(txn, room_nid, 500):
        pass
    txn.execute("DELETE FROM rooms WHERE room_nid = ?", (room_nid,))
