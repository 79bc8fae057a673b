"""The `dehydrated_devices` table: at most one device of each user."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class DehydratedRow(NamedTuple):
    """`device_data` is JSON."""

    device_id: str
    device_data: str


def get(txn: Transaction, user_id: str) -> DehydratedRow | None:
    """The dehydrated device of a user."""
    row = txn.one(
        "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = ?", (user_id,)
    )
    return DehydratedRow(*row) if row else None


def put(txn: Transaction, user_id: str, row: DehydratedRow) -> None:
    """Set the dehydrated device of a user."""
    txn.execute(
        "INSERT INTO dehydrated_devices (user_id, device_id, device_data) VALUES (?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET device_id = excluded.device_id,"
        " device_data = excluded.device_data",
        (user_id, *row),
    )


def delete_device(txn: Transaction, user_id: str, device_id: str) -> None:
    """Forget a device that is deleted, if it is the dehydrated one."""
    txn.execute(
        "DELETE FROM dehydrated_devices WHERE user_id = ? AND device_id = ?", (user_id, device_id)
    )
