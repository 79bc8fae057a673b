"""The `threepids` table: e-mail addresses and phone numbers bound to local accounts."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class ThreepidRow(NamedTuple):
    """An address of an account; times in milliseconds."""

    medium: str
    address: str
    validated_ts: int
    added_ts: int


def get_user(txn: Transaction, medium: str, address: str) -> str | None:
    """The account that a canonical third-party identifier belongs to."""
    found: str | None = txn.value(
        "SELECT user_id FROM threepids WHERE medium = ? AND address = ?", (medium, address)
    )
    return found


def add(
    txn: Transaction,
    medium: str,
    address: str,
    user_id: str,
    now_ms: int,
    validated_ts: int | None = None,
) -> bool:
    """Bind a validated identifier to an account; False if it belongs to another one."""
    txn.execute(
        "INSERT INTO threepids (medium, address, user_id, validated_ts, added_ts)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (medium, address) DO NOTHING",
        (medium, address, user_id, now_ms if validated_ts is None else validated_ts, now_ms),
    )
    return get_user(txn, medium, address) == user_id


def of_user(txn: Transaction, user_id: str) -> list[ThreepidRow]:
    """The identifiers of an account."""
    sql = (
        "SELECT medium, address, validated_ts, added_ts FROM threepids WHERE user_id = ?"
        " ORDER BY medium, address"
    )
    return [ThreepidRow(*raw) for raw in txn.all(sql, (user_id,))]


def delete(txn: Transaction, medium: str, address: str, user_id: str) -> bool:
    """Take an identifier from an account; False if it has none of this kind."""
    sql = "DELETE FROM threepids WHERE medium = ? AND address = ? AND user_id = ?"
    return txn.execute(sql, (medium, address, user_id)) == 1


def delete_of_user(txn: Transaction, user_id: str) -> None:
    """Remove all identifiers of an account."""
    txn.execute("DELETE FROM threepids WHERE user_id = ?", (user_id,))
