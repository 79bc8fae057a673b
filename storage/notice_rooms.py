"""The room in which the server tells a user something: one for each. Table `notice_rooms`."""

from __future__ import annotations

from storage.transaction import Transaction


def room_of(txn: Transaction, user_id: str) -> str | None:
    """The ID of the user's room."""
    found: str | None = txn.value("SELECT room_id FROM notice_rooms WHERE user_id = ?", (user_id,))
    return found


def set_room(txn: Transaction, user_id: str, room_id: str) -> bool:
    """Note a user's room; False if they have one."""
    sql = "INSERT INTO notice_rooms (user_id, room_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
    return txn.execute(sql, (user_id, room_id)) == 1
