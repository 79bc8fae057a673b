"""The `one_time_tokens` table: short-lived secrets, of which only hashes are stored."""

from __future__ import annotations

from storage.transaction import Transaction

LOGIN = "login"
OPENID = "openid"
NONCE = "nonce"


def insert(
    txn: Transaction, purpose: str, token_hash: bytes, user_id: str | None, expires_ts: int
) -> None:
    """Store a token."""
    txn.execute(
        "INSERT INTO one_time_tokens (purpose, token_hash, user_id, expires_ts)"
        " VALUES (?, ?, ?, ?)",
        (purpose, token_hash, user_id, expires_ts),
    )


def get(txn: Transaction, purpose: str, token_hash: bytes, now_ms: int) -> str | None:
    """The user of a token that has not expired."""
    found: str | None = txn.value(
        "SELECT user_id FROM one_time_tokens"
        " WHERE purpose = ? AND token_hash = ? AND expires_ts > ?",
        (purpose, token_hash, now_ms),
    )
    return found


def take(
    txn: Transaction, purpose: str, token_hash: bytes, now_ms: int
) -> tuple[str | None] | None:
    """Use a token up; returns its user in a tuple, or None if it is unknown, used or expired."""
    raw = txn.one(
        "DELETE FROM one_time_tokens WHERE purpose = ? AND token_hash = ?"
        " RETURNING user_id, expires_ts",
        (purpose, token_hash),
    )
    return (raw[0],) if raw and raw[1] > now_ms else None


def delete_of_user(txn: Transaction, user_id: str) -> None:
    """End all tokens of a user."""
    txn.execute("DELETE FROM one_time_tokens WHERE user_id = ?", (user_id,))


def delete_expired(txn: Transaction, now_ms: int) -> int:
    """Remove expired tokens; returns how many."""
    return txn.execute("DELETE FROM one_time_tokens WHERE expires_ts <= ?", (now_ms,))
