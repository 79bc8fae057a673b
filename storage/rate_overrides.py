"""Limits that administrators set for single users. Table `rate_overrides`."""

from __future__ import annotations

from typing import NamedTuple

from storage import tokens
from storage.transaction import Transaction


class RateOverride(NamedTuple):
    """Requests a second in the long run (0: without limit), and at once."""

    per_second: int
    burst: int


def get(txn: Transaction, user_id: str) -> RateOverride | None:
    """The limit of a user, if one was set."""
    sql = "SELECT per_second, burst FROM rate_overrides WHERE user_id = ?"
    raw = txn.one(sql, (user_id,))
    return RateOverride(*raw) if raw else None


def put(txn: Transaction, user_id: str, limit: RateOverride) -> None:
    """Set the limit of a user, in every process."""
    txn.execute(
        "INSERT INTO rate_overrides (user_id, per_second, burst) VALUES (?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET per_second = excluded.per_second,"
        " burst = excluded.burst",
        (user_id, *limit),
    )
    txn.invalidate(tokens.CACHE, user_id)


def delete(txn: Transaction, user_id: str) -> None:
    """Let the limits of the configuration apply to a user again."""
    if txn.execute("DELETE FROM rate_overrides WHERE user_id = ?", (user_id,)):
        txn.invalidate(tokens.CACHE, user_id)
