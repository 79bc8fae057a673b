"""The `external_ids` table: whom the people of single sign-on providers are here."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class ExternalIdRow(NamedTuple):
    """What a provider knows an account's owner by."""

    provider: str
    external_id: str
    added_ts: int


def get_user(txn: Transaction, provider: str, external_id: str) -> str | None:
    """The account of a person whom a provider knows."""
    found: str | None = txn.value(
        "SELECT user_id FROM external_ids WHERE provider = ? AND external_id = ?",
        (provider, external_id),
    )
    return found


def add(txn: Transaction, provider: str, external_id: str, user_id: str, now_ms: int) -> bool:
    """Connect a person with an account; False if they are connected with another one."""
    txn.execute(
        "INSERT INTO external_ids (provider, external_id, user_id, added_ts) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (provider, external_id) DO NOTHING",
        (provider, external_id, user_id, now_ms),
    )
    return get_user(txn, provider, external_id) == user_id


def of_user(txn: Transaction, user_id: str) -> list[ExternalIdRow]:
    """What providers know the owner of an account by."""
    sql = (
        "SELECT provider, external_id, added_ts FROM external_ids WHERE user_id = ?"
        " ORDER BY provider, external_id"
    )
    return [ExternalIdRow(*raw) for raw in txn.all(sql, (user_id,))]


def delete(txn: Transaction, provider: str, external_id: str, user_id: str) -> bool:
    """Take a connection away; False if there is none."""
    sql = "DELETE FROM external_ids WHERE provider = ? AND external_id = ? AND user_id = ?"
    return txn.execute(sql, (provider, external_id, user_id)) == 1


def delete_of_user(txn: Transaction, user_id: str) -> None:
    """Take all connections of an account away."""
    txn.execute("DELETE FROM external_ids WHERE user_id = ?", (user_id,))
