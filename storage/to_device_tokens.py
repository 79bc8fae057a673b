"""Tokens that stand for less of the messages to a device than their position says."""

from __future__ import annotations

from storage.transaction import Transaction


def remember(txn: Transaction, user_id: str, device_id: str, token_pos: int, reached: int) -> None:
    """An answer whose token is at `token_pos` gave messages only up to `reached`."""
    txn.execute(
        "INSERT INTO to_device_tokens (user_id, device_id, token_pos, reached)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (user_id, device_id, token_pos) DO UPDATE SET reached ="
        " CASE WHEN excluded.reached < to_device_tokens.reached THEN excluded.reached"
        " ELSE to_device_tokens.reached END",
        (user_id, device_id, token_pos, reached),
    )


def reached(txn: Transaction, user_id: str, device_id: str, token_pos: int) -> int:
    """Up to where a device that has this token has got its messages."""
    found: int | None = txn.value(
        "SELECT reached FROM to_device_tokens WHERE user_id = ? AND device_id = ?"
        " AND token_pos = ?",
        (user_id, device_id, token_pos),
    )
    return token_pos if found is None else found


def forget(txn: Transaction, user_id: str, device_id: str, before: int | None = None) -> None:
    """Drop a device's entries: those of tokens before a position, or all."""
    sql = "DELETE FROM to_device_tokens WHERE user_id = ? AND device_id = ?"
    args: list[object] = [user_id, device_id]
    if before is not None:
        sql += " AND token_pos < ?"
        args.append(before)
    txn.execute(sql, args)
