"""Backups of message keys. Tables `key_backups`, `key_backup_numbers`, `backed_up_keys`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from storage.transaction import Transaction

_AT_ONCE = 2_000


class BackupRow(NamedTuple):
    """A backup; `auth_data` is JSON, `keys` their number, `etag` changes with them."""

    version: int
    algorithm: str
    auth_data: str
    etag: int
    keys: int


class Quality(NamedTuple):
    """How good a key is: the smaller tuple is the better key."""

    unverified: bool
    first_message_index: int
    forwarded_count: int


class KeyRow(NamedTuple):
    """A key in a backup; `session_data` is JSON."""

    room_id: str
    session_id: str
    quality: Quality
    session_data: str


_COLUMNS = "version, algorithm, auth_data, etag, keys"


def add(txn: Transaction, user_id: str, algorithm: str, auth_data: str) -> int:
    """Begin a backup; its version, which no other backup of the user ever had."""
    version: int = txn.value(
        "INSERT INTO key_backup_numbers (user_id, last) VALUES (?, 1) ON CONFLICT (user_id)"
        " DO UPDATE SET last = key_backup_numbers.last + 1 RETURNING last",
        (user_id,),
    )
    txn.execute(
        f"INSERT INTO key_backups (user_id, {_COLUMNS}) VALUES (?, ?, ?, ?, 0, 0)",
        (user_id, version, algorithm, auth_data),
    )
    return version


def count(txn: Transaction, user_id: str) -> int:
    """How many backups a user has."""
    return int(txn.value("SELECT count(*) FROM key_backups WHERE user_id = ?", (user_id,)))


def last_number(txn: Transaction, user_id: str) -> int:
    """The version of the last backup that the user ever began; 0: there was none."""
    sql = "SELECT last FROM key_backup_numbers WHERE user_id = ?"
    return int(txn.value(sql, (user_id,)) or 0)


def get(txn: Transaction, user_id: str, version: int, *, lock: bool = False) -> BackupRow | None:
    """One backup; with `lock`, nobody else changes it until the transaction ends."""
    row = txn.one(
        f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = ? AND version = ?"
        f"{txn.dialect.for_update if lock else ''}",
        (user_id, version),
    )
    return BackupRow(*row) if row else None


def current(txn: Transaction, user_id: str) -> BackupRow | None:
    """The newest backup."""
    row = txn.one(
        f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = ? ORDER BY version DESC LIMIT 1",
        (user_id,),
    )
    return BackupRow(*row) if row else None


def set_auth_data(txn: Transaction, user_id: str, version: int, auth_data: str) -> None:
    """Replace what a backup's key is known by."""
    txn.execute(
        "UPDATE key_backups SET auth_data = ? WHERE user_id = ? AND version = ?",
        (auth_data, user_id, version),
    )


def changed(txn: Transaction, user_id: str, version: int, more: int) -> None:
    """The keys of a backup changed, and there are `more` of them."""
    txn.execute(
        "UPDATE key_backups SET etag = etag + 1, keys = keys + ? WHERE user_id = ? AND version = ?",
        (more, user_id, version),
    )


def delete(txn: Transaction, user_id: str, version: int) -> None:
    """Delete a backup and its keys."""
    delete_keys(txn, user_id, version)
    txn.execute("DELETE FROM key_backups WHERE user_id = ? AND version = ?", (user_id, version))


def delete_all(txn: Transaction, user_id: str) -> None:
    """Delete all backups of a user; their numbers stay used."""
    for table in ("backed_up_keys", "key_backups"):
        txn.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))


def qualities(
    txn: Transaction, user_id: str, version: int, session_ids: Iterable[str]
) -> dict[tuple[str, str], Quality]:
    """How good the keys of these sessions are, by room and session."""
    found = {}
    for part in _parts(session_ids):
        condition, args = txn.any_of("session_id", part)
        for room_id, session_id, verified, index, forwarded in txn.all(
            "SELECT room_id, session_id, is_verified, first_message_index, forwarded_count"
            f" FROM backed_up_keys WHERE user_id = ? AND version = ? AND {condition}",
            [user_id, version, *args],
        ):
            found[room_id, session_id] = Quality(not verified, index, forwarded)
    return found


def _parts(ids: Iterable[str]) -> Iterator[list[str]]:
    each = iter(ids)
    while part := list(islice(each, _AT_ONCE)):
        yield part


def put(txn: Transaction, user_id: str, version: int, keys: Iterable[KeyRow]) -> None:
    """Add keys or replace them; each session of a room once."""
    txn.many(
        "INSERT INTO backed_up_keys (user_id, version, session_id, room_id, is_verified,"
        " first_message_index, forwarded_count, session_data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (user_id, version, session_id, room_id) DO UPDATE SET"
        " is_verified = excluded.is_verified, session_data = excluded.session_data,"
        " first_message_index = excluded.first_message_index,"
        " forwarded_count = excluded.forwarded_count",
        (
            (
                user_id,
                version,
                key.session_id,
                key.room_id,
                not key.quality.unverified,
                key.quality.first_message_index,
                key.quality.forwarded_count,
                key.session_data,
            )
            for key in keys
        ),
    )


def _where(room_id: str | None, session_id: str | None) -> tuple[str, list[str]]:
    condition, args = "user_id = ? AND version = ?", []
    for column, value in (("room_id", room_id), ("session_id", session_id)):
        if value is not None:
            condition += f" AND {column} = ?"
            args.append(value)
    return condition, args


def keys_of(
    txn: Transaction,
    user_id: str,
    version: int,
    room_id: str | None = None,
    session_id: str | None = None,
) -> list[KeyRow]:
    """The keys of a backup, of one of its rooms, or of one session there."""
    where, args = _where(room_id, session_id)
    return [
        KeyRow(room, session, Quality(not verified, index, forwarded), data)
        for room, session, verified, index, forwarded, data in txn.all(
            "SELECT room_id, session_id, is_verified, first_message_index, forwarded_count,"
            f" session_data FROM backed_up_keys WHERE {where} ORDER BY room_id, session_id",
            [user_id, version, *args],
        )
    ]


def delete_keys(
    txn: Transaction,
    user_id: str,
    version: int,
    room_id: str | None = None,
    session_id: str | None = None,
) -> int:
    """Delete keys, chosen as in `keys_of`; how many there were."""
    where, args = _where(room_id, session_id)
    return txn.execute(f"DELETE FROM backed_up_keys WHERE {where}", [user_id, version, *args])
