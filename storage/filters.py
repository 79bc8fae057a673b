"""Filters that clients stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.point_query import point_query
from storage.transaction import Row, Transaction

MAX_FILTERS = 1000
"""Filters of one user; of more, the oldest are forgotten."""


def add(txn: Transaction, user_id: str, json: str) -> int:
    """Store a filter; its number, or that of an equal one."""
    known: int | None = txn.value(
        "SELECT filter_id FROM filters WHERE user_id = ? AND json = ?", (user_id, json)
    )
    if known is not None:
        return known
    last: int = txn.value("SELECT MAX(filter_id) FROM filters WHERE user_id = ?", (user_id,)) or 0
    number: int = txn.value(
        "INSERT INTO filters (user_id, filter_id, json) VALUES (?, ?, ?)"
        " ON CONFLICT (user_id, filter_id) DO UPDATE SET json = excluded.json RETURNING filter_id",
        (user_id, last + 1, json),
    )
    txn.execute(
        "DELETE FROM filters WHERE user_id = ? AND filter_id <= ?", (user_id, number - MAX_FILTERS)
    )
    return number


def _json(rows: list[Row]) -> str | None:
    return rows[0][0] if rows else None


@point_query("SELECT json FROM filters WHERE user_id = ? AND filter_id = CAST(? AS BIGINT)", _json)
def get(user_id: str, filter_id: int) -> Sequence[Any]:
    """The JSON of a filter."""
    return (user_id, filter_id)
