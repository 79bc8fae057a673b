"""The `registration_tokens` table: tokens that allow people to register."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class RegistrationTokenRow(NamedTuple):
    """A registration token, how often it may be used and how often it was."""

    token: str
    uses_allowed: int | None
    completed: int
    expires_ts: int | None


_VALID = "(uses_allowed IS NULL OR completed < uses_allowed)" + (
    " AND (expires_ts IS NULL OR expires_ts > ?)"
)


def insert(
    txn: Transaction, token: str, uses_allowed: int | None = None, expires_ts: int | None = None
) -> bool:
    """Add a token; False if there is one of this name."""
    inserted = txn.execute(
        "INSERT INTO registration_tokens (token, uses_allowed, completed, expires_ts)"
        " VALUES (?, ?, 0, ?) ON CONFLICT (token) DO NOTHING",
        (token, uses_allowed, expires_ts),
    )
    return inserted == 1


def get(txn: Transaction, token: str) -> RegistrationTokenRow | None:
    """A token, valid or not."""
    raw = txn.one(
        "SELECT token, uses_allowed, completed, expires_ts FROM registration_tokens"
        " WHERE token = ?",
        (token,),
    )
    return RegistrationTokenRow(*raw) if raw else None


def list_tokens(txn: Transaction) -> list[RegistrationTokenRow]:
    """All tokens, valid or not, in the order of their names."""
    sql = "SELECT token, uses_allowed, completed, expires_ts FROM registration_tokens"
    return [RegistrationTokenRow(*raw) for raw in txn.all(f"{sql} ORDER BY token")]


def page(txn: Transaction, valid: bool | None, now_ms: int) -> list[RegistrationTokenRow]:
    """The tokens that can, or cannot, still be used; None: all."""
    sql = "SELECT token, uses_allowed, completed, expires_ts FROM registration_tokens"
    if valid is None:
        return list_tokens(txn)
    where = _VALID if valid else f"NOT ({_VALID})"
    rows = txn.all(f"{sql} WHERE {where} ORDER BY token", (now_ms,))
    return [RegistrationTokenRow(*raw) for raw in rows]


def lock(txn: Transaction, token: str) -> RegistrationTokenRow | None:
    """A token, its row locked until the transaction ends."""
    raw = txn.one(
        "SELECT token, uses_allowed, completed, expires_ts FROM registration_tokens"
        f" WHERE token = ?{txn.dialect.for_update}",
        (token,),
    )
    return RegistrationTokenRow(*raw) if raw else None


def update(txn: Transaction, token: str, uses_allowed: int | None, expires_ts: int | None) -> None:
    """Say anew how often and how long a token can be used; None: without limit."""
    txn.execute(
        "UPDATE registration_tokens SET uses_allowed = ?, expires_ts = ? WHERE token = ?",
        (uses_allowed, expires_ts, token),
    )


def is_valid(txn: Transaction, token: str, now_ms: int) -> bool:
    """Whether the token can still be used."""
    sql = f"SELECT 1 FROM registration_tokens WHERE token = ? AND {_VALID}"
    return txn.one(sql, (token, now_ms)) is not None


def use(txn: Transaction, token: str, now_ms: int) -> bool:
    """Count one registration; False if the token is used up, expired or unknown."""
    sql = f"UPDATE registration_tokens SET completed = completed + 1 WHERE token = ? AND {_VALID}"
    return txn.execute(sql, (token, now_ms)) == 1


def delete(txn: Transaction, token: str) -> bool:
    """Remove a token; False if there is none."""
    return txn.execute("DELETE FROM registration_tokens WHERE token = ?", (token,)) == 1
