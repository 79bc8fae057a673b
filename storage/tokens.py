"""The `access_tokens` and `refresh_tokens` tables. Only hashes of tokens are stored.

A refresh makes a new pair and leaves the old refresh token alive, pointing at its successor.
The first use of either new token (`confirm`) ends the old pair, so that a client that lost the
answer to a refresh can repeat it (Client-server API, "Refreshing access tokens").
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from storage.point_query import point_query
from storage.transaction import Row, Transaction

CACHE = "token"
"""Cache of authenticated tokens; keys of invalidations are user IDs."""


NO_DEVICE = ""
"""Instead of the ID of a device in tokens that belong to none."""


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
    shadow_banned: bool
    puppeteer: str | None
    rate: tuple[int, int] | None
    """Requests a second and at once, where an administrator set them; (0, 0): without limit."""


class RefreshTokenRow(NamedTuple):
    """A refresh token."""

    user_id: str
    device_id: str
    expires_ts: int | None
    next_hash: bytes | None


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def _access_token(rows: list[Row]) -> AccessTokenRow | None:
    if not rows:
        return None
    user_id, device_id, expires_ts, refresh_hash, *flags, per_second, burst, puppeteer = rows[0]
    rate = None if per_second is None else (per_second, burst)
    told = (user_id, device_id, expires_ts, _bytes(refresh_hash), *map(bool, flags))
    return AccessTokenRow._make((*told, puppeteer, rate))


@point_query(
    "SELECT t.user_id, t.device_id, t.expires_ts, t.refresh_hash, t.used,"
    " u.is_guest, u.is_admin, u.locked, u.suspended, u.shadow_banned,"
    " r.per_second, r.burst, t.puppeteer"
    " FROM access_tokens t JOIN users u ON u.user_id = t.user_id"
    " LEFT JOIN rate_overrides r ON r.user_id = t.user_id"
    " WHERE t.token_hash = ? AND u.deactivated_ts IS NULL",
    _access_token,
)
def get_access_token(token_hash: bytes) -> Sequence[Any]:
    """The access token of this hash, if its account is active."""
    return (token_hash,)


def insert_access_token(
    txn: Transaction,
    token_hash: bytes,
    user_id: str,
    device_id: str,
    *,
    now_ms: int,
    expires_ts: int | None = None,
    refresh_hash: bytes | None = None,
    puppeteer: str | None = None,
) -> None:
    """Store an access token, with the refresh token that was given out with it.

    `puppeteer`: the administrator who uses the account with it; then `device_id` is `NO_DEVICE`.
    """
    txn.execute(
        "INSERT INTO access_tokens (token_hash, user_id, device_id, created_ts, expires_ts,"
        " refresh_hash, used, puppeteer) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (token_hash, user_id, device_id, now_ms, expires_ts, refresh_hash, False, puppeteer),
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


def delete_token(txn: Transaction, token_hash: bytes) -> None:
    """End one access token, which has no refresh token."""
    sql = "DELETE FROM access_tokens WHERE token_hash = ? RETURNING user_id"
    for row in txn.all(sql, (token_hash,)):
        txn.invalidate(CACHE, row[0])


def delete_by_puppeteer(txn: Transaction, puppeteer: str) -> None:
    """End the tokens with which an administrator uses the accounts of others."""
    sql = "DELETE FROM access_tokens WHERE puppeteer = ? RETURNING user_id"
    for user_id in {row[0] for row in txn.all(sql, (puppeteer,))}:
        txn.invalidate(CACHE, user_id)


def delete_puppets(txn: Transaction, user_id: str) -> None:
    """End the tokens with which administrators use this account."""
    sql = "DELETE FROM access_tokens WHERE user_id = ? AND device_id = ?"
    if txn.execute(sql, (user_id, NO_DEVICE)):
        txn.invalidate(CACHE, user_id)


def delete_expired(txn: Transaction, now_ms: int) -> int:
    """Remove expired tokens that belong to no device; returns how many.

    Those of devices stay: their clients are told to log in again.
    """
    sql = "DELETE FROM access_tokens WHERE puppeteer IS NOT NULL AND expires_ts <= ?"
    return txn.execute(sql, (now_ms,))
