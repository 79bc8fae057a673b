"""The `bound_threepids` table: addresses that users have published at identity servers."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class BoundRow(NamedTuple):
    """An address of a user that an identity server tells others about."""

    user_id: str
    medium: str
    address: str
    id_server: str


def add(txn: Transaction, row: BoundRow) -> None:
    """Note that an identity server has published an address."""
    txn.execute(
        "INSERT INTO bound_threepids (user_id, medium, address, id_server) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_id, medium, address, id_server) DO NOTHING",
        row,
    )


def of_user(txn: Transaction, user_id: str) -> list[BoundRow]:
    """All that a user has published."""
    sql = (
        "SELECT user_id, medium, address, id_server FROM bound_threepids WHERE user_id = ?"
        " ORDER BY medium, address, id_server"
    )
    return [BoundRow(*raw) for raw in txn.all(sql, (user_id,))]


def servers(txn: Transaction, user_id: str, medium: str, address: str) -> list[str]:
    """The identity servers at which a user has published an address."""
    sql = (
        "SELECT id_server FROM bound_threepids WHERE user_id = ? AND medium = ? AND address = ?"
        " ORDER BY id_server"
    )
    return [raw[0] for raw in txn.all(sql, (user_id, medium, address))]


def delete(txn: Transaction, row: BoundRow) -> None:
    """Note that an address is not published any more."""
    txn.execute(
        "DELETE FROM bound_threepids"
        " WHERE user_id = ? AND medium = ? AND address = ? AND id_server = ?",
        row,
    )
