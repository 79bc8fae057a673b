"""The `access_tokens` and `refresh_tokens` tables. Only hashes of tokens are stored.

A refresh makes a new pair and leaves the old refresh token alive, pointing at its successor.
The first use of either new token (`confirm`) ends the old pair, so that a client that lost the
answer to a refresh can repeat it (Client-server API, "Refreshing access tokens").
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.transaction import Transaction

CACHE = "token"
"""Cache of authenticated tokens; keys of invalidations are user IDs."""


class AccessTokenRow(NamedTuple):
    """An access token and the account it belongs to."""

    user_id: str
    device_id: str
    expires_ts: int | None
    refresh_hash: bytes | None
    used: bool
    is_guest: bool
    is_admin: bool
    locked: bool
    suspended: bool


class RefreshTokenRow(NamedTuple):
    """A refresh token."""

    user_id: str
    device_id: str
    expires_ts: int | None
    next_hash: bytes | None


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def get_access_token(txn: Transaction, token_hash: bytes) -> AccessTokenRow | None:
    """The access token of this hash, if its account is active."""
    raw = txn.one(
        "SELECT t.user_id, t.device_id, t.expires_ts, t.refresh_hash, t.used,"
        " u.is_guest, u.is_admin, u.locked, u.suspended"
        " FROM access_tokens t JOIN users u ON u.user_id = t.user_id"
        " WHERE t.token_hash = ? AND u.deactivated_ts IS NULL",
        (token_hash,),
    )
    if raw is None:
        return None
    user_id, device_id, expires_ts, refresh_hash, *flags = raw
    return AccessTokenRow(user_id, device_id, expires_ts, _bytes(refresh_hash), *map(bool, flags))


def insert_access_token(
    txn: Transaction,
    token_hash: bytes,
    user_id: str,
    device_id: str,
    *,
    now_ms: int,
    expires_ts: int | None = None,
    refresh_hash: bytes | None = None,
) -> None:
    """Store an access token, with the refresh token that was given out with it."""
    txn.execute(
        "INSERT INTO access_tokens (token_hash, user_id, device_id, created_ts, expires_ts,"
        " refresh_hash, used) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (token_hash, user_id, device_id, now_ms, expires_ts, refresh_hash, False),
    )


def insert_refresh_token(
    txn: Transaction,
    token_hash: bytes,
    user_id: str,
    device_id: str,
    *,
    now_ms: int,
    expires_ts: int | None,
) -> None:
    """Store a refresh token."""
    txn.execute(
        "INSERT INTO refresh_tokens (token_hash, user_id, device_id, created_ts, expires_ts)"
        " VALUES (?, ?, ?, ?, ?)",
        (token_hash, user_id, device_id, now_ms, expires_ts),
    )


def device_of_refresh_token(txn: Transaction, token_hash: bytes) -> tuple[str, str] | None:
    """User ID and device ID of the refresh token of this hash."""
    sql = "SELECT user_id, device_id FROM refresh_tokens WHERE token_hash = ?"
    raw = txn.one(sql, (token_hash,))
    return (raw[0], raw[1]) if raw else None


def lock_refresh_token(txn: Transaction, token_hash: bytes) -> RefreshTokenRow | None:
    """The refresh token of this hash, its row locked until the transaction ends."""
    raw = txn.one(
        "UPDATE refresh_tokens SET created_ts = created_ts WHERE token_hash = ?"
        " RETURNING user_id, device_id, expires_ts, next_hash",
        (token_hash,),
    )
    if raw is None:
        return None
    user_id, device_id, expires_ts, next_hash = raw
    return RefreshTokenRow(user_id, device_id, expires_ts, _bytes(next_hash))


def set_successor(txn: Transaction, token_hash: bytes, next_hash: bytes) -> None:
    """Note what a refresh token was exchanged for."""
    txn.execute(
        "UPDATE refresh_tokens SET next_hash = ? WHERE token_hash = ?", (next_hash, token_hash)
    )


def delete_pair(txn: Transaction, refresh_hash: bytes) -> None:
    """Delete a refresh token and the access token given out with it."""
    txn.execute("DELETE FROM access_tokens WHERE refresh_hash = ?", (refresh_hash,))
    txn.execute("DELETE FROM refresh_tokens WHERE token_hash = ?", (refresh_hash,))


def confirm(txn: Transaction, user_id: str, refresh_hash: bytes) -> None:
    """A pair has been used: end the pair that it replaced."""
    marked = txn.execute(
        "UPDATE access_tokens SET used = ? WHERE refresh_hash = ? AND used = ?",
        (True, refresh_hash, False),
    )
    replaced = txn.all("SELECT token_hash FROM refresh_tokens WHERE next_hash = ?", (refresh_hash,))
    for row in replaced:
        delete_pair(txn, bytes(row[0]))
    if marked or replaced:
        txn.invalidate(CACHE, user_id)


def delete_of_devices(txn: Transaction, user_id: str, device_ids: Collection[str]) -> None:
    """End every token of these devices."""
    if not device_ids:
        return
    where, args = txn.any_of("device_id", device_ids)
    for table in ("access_tokens", "refresh_tokens"):
        txn.execute(f"DELETE FROM {table} WHERE user_id = ? AND {where}", [user_id, *args])
    txn.invalidate(CACHE, user_id)
