"""The `threepids` table: e-mail addresses and phone numbers bound to local accounts."""

from __future__ import annotations

from storage.transaction import Transaction


def get_user(txn: Transaction, medium: str, address: str) -> str | None:
    """The account that a canonical third-party identifier belongs to."""
    found: str | None = txn.value(
        "SELECT user_id FROM threepids WHERE medium = ? AND address = ?", (medium, address)
    )
    return found


def add(txn: Transaction, medium: str, address: str, user_id: str, now_ms: int) -> bool:
    """Bind a validated identifier to an account; False if it belongs to another one."""
    txn.execute(
        "INSERT INTO threepids (medium, address, user_id, validated_ts, added_ts)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (medium, address) DO NOTHING",
        (medium, address, user_id, now_ms, now_ms),
    )
    return get_user(txn, medium, address) == user_id


def delete_of_user(txn: Transaction, user_id: str) -> None:
    """Remove all identifiers of an account."""
    txn.execute("DELETE FROM threepids WHERE user_id = ?", (user_id,))
