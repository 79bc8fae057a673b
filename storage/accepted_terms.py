"""The `accepted_terms` table: which version of each policy document a user has accepted."""

from __future__ import annotations

from collections.abc import Mapping

from storage.transaction import Transaction


def put(txn: Transaction, user_id: str, versions: Mapping[str, str], now_ms: int) -> None:
    """Note that the user accepted these documents, by name, in these versions."""
    txn.many(
        "INSERT INTO accepted_terms (user_id, document, version, accepted_ts)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (user_id, document)"
        " DO UPDATE SET version = excluded.version, accepted_ts = excluded.accepted_ts",
        [(user_id, document, version, now_ms) for document, version in versions.items()],
    )


def get(txn: Transaction, user_id: str) -> dict[str, str]:
    """The documents that the user accepted, and their versions."""
    sql = "SELECT document, version FROM accepted_terms WHERE user_id = ? ORDER BY document"
    return dict(row[:2] for row in txn.all(sql, (user_id,)))


def newest(txn: Transaction, user_id: str) -> tuple[str, int] | None:
    """The version that the user accepted last, and when."""
    raw = txn.one(
        "SELECT version, accepted_ts FROM accepted_terms WHERE user_id = ?"
        " ORDER BY accepted_ts DESC, document LIMIT 1",
        (user_id,),
    )
    return (raw[0], raw[1]) if raw else None
