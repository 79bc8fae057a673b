"""The `users` table: local accounts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from storage.transaction import Transaction


class UserRow(NamedTuple):
    """A local account."""

    user_id: str
    password_hash: str | None
    user_type: str | None
    is_guest: bool
    is_admin: bool
    locked: bool
    suspended: bool
    erased: bool
    deactivated_ts: int | None
    created_ts: int
    shadow_banned: bool = False

    @property
    def deactivated(self) -> bool:
        return self.deactivated_ts is not None


_COLUMNS = (
    "user_id, password_hash, user_type, is_guest, is_admin, locked, suspended, erased,"
    " deactivated_ts, created_ts, shadow_banned"
)


def _row(raw: tuple[Any, ...]) -> UserRow:
    return UserRow._make((*raw[:3], *map(bool, raw[3:8]), *raw[8:10], bool(raw[10])))


def get_user(txn: Transaction, user_id: str) -> UserRow | None:
    """The account of exactly this user ID, also when deactivated."""
    raw = txn.one(f"SELECT {_COLUMNS} FROM users WHERE user_id = ?", (user_id,))
    return _row(raw) if raw else None


def lock_user(txn: Transaction, user_id: str) -> UserRow | None:
    """The account of this user ID, its row locked until the transaction ends."""
    lock = txn.dialect.for_update
    raw = txn.one(f"SELECT {_COLUMNS} FROM users WHERE user_id = ?{lock}", (user_id,))
    return _row(raw) if raw else None


def exists(txn: Transaction, user_id: str) -> bool:
    """Whether the user ID is taken, also by a deactivated account."""
    return txn.one("SELECT 1 FROM users WHERE user_id = ?", (user_id,)) is not None


def insert_user(txn: Transaction, row: UserRow) -> bool:
    """Add an account; False if the user ID is taken."""
    inserted = txn.execute(
        f"INSERT INTO users ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (user_id) DO NOTHING",
        row,
    )
    return inserted == 1


def set_password_hash(txn: Transaction, user_id: str, password_hash: str | None) -> bool:
    """Change how the user proves who they are; False if there is no such account."""
    sql = "UPDATE users SET password_hash = ? WHERE user_id = ?"
    return txn.execute(sql, (password_hash, user_id)) == 1


def replace_password_hash(txn: Transaction, user_id: str, old: str, new: str) -> bool:
    """Store the same password hashed anew, unless it was changed meanwhile."""
    sql = "UPDATE users SET password_hash = ? WHERE user_id = ? AND password_hash = ?"
    return txn.execute(sql, (new, user_id, old)) == 1


def upgrade_guest(txn: Transaction, user_id: str, password_hash: str | None) -> bool:
    """Make a guest a full user; False if it is no active guest."""
    sql = (
        "UPDATE users SET is_guest = ?, password_hash = ?"
        " WHERE user_id = ? AND is_guest = ? AND deactivated_ts IS NULL"
    )
    return txn.execute(sql, (False, password_hash, user_id, True)) == 1


def deactivate(txn: Transaction, user_id: str, now_ms: int, erase: bool) -> bool:
    """Close an account for good: no password, no rights. False if it is not active."""
    done = txn.execute(
        "UPDATE users SET deactivated_ts = ?, password_hash = NULL, is_admin = ?"
        " WHERE user_id = ? AND deactivated_ts IS NULL",
        (now_ms, False, user_id),
    )
    if erase:
        txn.execute("UPDATE users SET erased = ? WHERE user_id = ?", (True, user_id))
    return done == 1


def reactivate(txn: Transaction, user_id: str, password_hash: str | None) -> bool:
    """Open a closed account again; False if it is not closed."""
    sql = (
        "UPDATE users SET deactivated_ts = NULL, erased = ?, password_hash = ?"
        " WHERE user_id = ? AND deactivated_ts IS NOT NULL"
    )
    return txn.execute(sql, (False, password_hash, user_id)) == 1


def set_user_type(txn: Transaction, user_id: str, user_type: str | None) -> bool:
    """Say what kind of account it is; None for that of a person."""
    sql = "UPDATE users SET user_type = ? WHERE user_id = ?"
    return txn.execute(sql, (user_type, user_id)) == 1


def set_shadow_banned(txn: Transaction, user_id: str, banned: bool) -> bool:
    """Let what the user sends reach nobody, or lift that."""
    sql = "UPDATE users SET shadow_banned = ? WHERE user_id = ?"
    return txn.execute(sql, (banned, user_id)) == 1


def is_shadow_banned(txn: Transaction, user_id: str) -> bool:
    """Whether what the user sends reaches nobody."""
    return bool(txn.value("SELECT shadow_banned FROM users WHERE user_id = ?", (user_id,)))


def set_keys_replaceable(txn: Transaction, user_id: str, until_ms: int | None) -> None:
    """Until when cross-signing keys are replaced without confirmation; None: no longer."""
    sql = "UPDATE users SET keys_replaceable_until = ? WHERE user_id = ?"
    txn.execute(sql, (until_ms, user_id))


def keys_replaceable_until(txn: Transaction, user_id: str) -> int:
    """See `set_keys_replaceable`; 0 where it was never set."""
    sql = "SELECT keys_replaceable_until FROM users WHERE user_id = ?"
    return int(txn.value(sql, (user_id,)) or 0)


def set_admin(txn: Transaction, user_id: str, is_admin: bool) -> bool:
    """Make the user a server administrator, or no longer one."""
    sql = "UPDATE users SET is_admin = ? WHERE user_id = ?"
    return txn.execute(sql, (is_admin, user_id)) == 1


def set_locked(txn: Transaction, user_id: str, locked: bool) -> bool:
    """Lock or unlock an account (Client-server API, "Account locking")."""
    sql = "UPDATE users SET locked = ? WHERE user_id = ?"
    return txn.execute(sql, (locked, user_id)) == 1


def set_suspended(txn: Transaction, user_id: str, suspended: bool) -> bool:
    """Suspend an account or lift that (Client-server API, "Account suspension")."""
    sql = "UPDATE users SET suspended = ? WHERE user_id = ?"
    return txn.execute(sql, (suspended, user_id)) == 1


def erased_among(txn: Transaction, user_ids: list[str]) -> set[str]:
    """Those of the users whose events newcomers see redacted."""
    if not user_ids:
        return set()
    where, args = txn.any_of("user_id", user_ids)
    sql = f"SELECT user_id FROM users WHERE {where} AND erased = ?"
    return {row[0] for row in txn.all(sql, [*args, True])}


def active_among(txn: Transaction, user_ids: Collection[str]) -> set[str]:
    """Those of the users whose accounts are not closed."""
    where, args = txn.any_of("user_id", user_ids)
    sql = f"SELECT user_id FROM users WHERE {where} AND deactivated_ts IS NULL"
    return {row[0] for row in txn.all(sql, args)}


def list_users(txn: Transaction, after: str = "", limit: int = 100) -> list[UserRow]:
    """Accounts in the order of their IDs, beginning behind `after`."""
    sql = f"SELECT {_COLUMNS} FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?"
    return [_row(raw) for raw in txn.all(sql, (after, limit))]
