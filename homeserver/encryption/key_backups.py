"""Backups of message keys (client-server API, "Server-side key backups").

A user's newest backup takes keys; older ones can be read and deleted. The server cannot read the
keys. Of two keys for one session it keeps the better one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from homeserver.core import canonical
from homeserver.core.errors import MatrixError, bad_json, invalid_param, not_found, too_large
from homeserver.core.types import JsonObject
from storage import key_backups, users
from storage.database import Database
from storage.key_backups import BackupRow, KeyRow, Quality
from storage.transaction import Transaction

MAX_BACKUPS = 100
"""Of one user; clients delete the old ones."""
MAX_KEYS = 1_000_000
"""In one backup."""
MAX_DATA_BYTES = 65_536
"""Of the JSON of a backup's `auth_data`, and of a key's `session_data`."""
MAX_NAME_BYTES = 255
"""Of algorithms, room IDs and session IDs."""


@dataclass(frozen=True, slots=True)
class Change:
    """A backup after a change of its keys."""

    etag: str
    count: int


@dataclass(frozen=True, slots=True)
class SentKey:
    """A key as a client sends it."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: JsonObject


class KeyBackups:
    """Keeps backups of message keys of local users.

    Errors of all methods that take a version: 404 M_NOT_FOUND if there is no such backup.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, user_id: str, algorithm: str, auth_data: JsonObject) -> str:
        """Begin a backup, the newest from now on; its version.

        Raises MatrixError: 400 M_INVALID_PARAM for too many backups, 413 M_TOO_LARGE.
        """
        _check_name(algorithm)
        encoded = _encode(auth_data)
        return str(await self._db.write(_begin, user_id, algorithm, encoded))

    async def current(self, user_id: str) -> BackupRow:
        """The newest backup. Raises MatrixError 404 M_NOT_FOUND."""
        found = await self._db.read(key_backups.current, user_id)
        if found is None:
            raise not_found("There is no backup.")
        return found

    async def get(self, user_id: str, version: str) -> BackupRow:
        """One backup."""
        return await self._db.read(_existing, user_id, version)

    async def change(
        self,
        user_id: str,
        version: str,
        named: str | None,
        algorithm: str,
        auth_data: JsonObject,
    ) -> None:
        """Replace a backup's `auth_data`.

        Raises MatrixError 400 M_INVALID_PARAM if `algorithm` or the version that the body named
        are not the backup's.
        """
        if named is not None and named != version:
            raise invalid_param("The versions in path and body differ.")
        encoded = _encode(auth_data)
        await self._db.write(_change, user_id, version, algorithm, encoded)

    async def delete(self, user_id: str, version: str) -> None:
        """Delete a backup with its keys; one that was deleted before is passed over."""
        await self._db.write(_delete, user_id, version)

    # A backup may have many keys: the answers are put together in the database's thread.

    async def all_keys(self, user_id: str, version: str) -> bytes:
        """All keys of a backup: the JSON text of an answer."""
        return await self._db.read(_all_keys, user_id, version)

    async def room_keys(self, user_id: str, version: str, room_id: str) -> bytes:
        """The keys of a room: the JSON text of an answer."""
        return await self._db.read(_room_keys, user_id, version, room_id)

    async def key(self, user_id: str, version: str, room_id: str, session_id: str) -> bytes:
        """The key of a session: the JSON text of an answer. Raises MatrixError 404."""
        found = await self._db.read(_keys, user_id, version, room_id, session_id)
        if not found:
            raise not_found("The backup has no key of this session.")
        return _answer_of(found[0]).encode()

    async def put(self, user_id: str, version: str, keys: Iterable[SentKey]) -> Change:
        """Add keys to the newest backup.

        Raises MatrixError: 403 M_WRONG_ROOM_KEYS_VERSION with `current_version` for another
        backup, 400 M_BAD_JSON, M_INVALID_PARAM, 413 M_TOO_LARGE for what cannot be kept.
        """
        rows = {(row.room_id, row.session_id): row for row in map(_row, keys)}
        return await self._db.write(_put, user_id, version, rows)

    async def delete_keys(
        self,
        user_id: str,
        version: str,
        room_id: str | None = None,
        session_id: str | None = None,
    ) -> Change:
        """Delete keys of a backup, all, those of a room, or that of a session."""
        return await self._db.write(_delete_keys, user_id, version, room_id, session_id)


def _answer_of(key: KeyRow) -> str:
    """The JSON text of a key as clients get it."""
    quality = key.quality
    return (
        f'{{"first_message_index":{quality.first_message_index}'
        f',"forwarded_count":{quality.forwarded_count}'
        f',"is_verified":{"false" if quality.unverified else "true"}'
        f',"session_data":{key.session_data}}}'
    )


def _sessions(keys: Iterable[KeyRow]) -> str:
    each = ",".join(f"{json.dumps(key.session_id)}:{_answer_of(key)}" for key in keys)
    return f'{{"sessions":{{{each}}}}}'


def _all_keys(txn: Transaction, user_id: str, version: str) -> bytes:
    keys = _keys(txn, user_id, version, None, None)
    rooms = (
        f"{json.dumps(room_id)}:{_sessions(theirs)}"
        for room_id, theirs in groupby(keys, lambda key: key.room_id)
    )
    return f'{{"rooms":{{{",".join(rooms)}}}}}'.encode()


def _room_keys(txn: Transaction, user_id: str, version: str, room_id: str) -> bytes:
    return _sessions(_keys(txn, user_id, version, room_id, None)).encode()


def _begin(txn: Transaction, user_id: str, algorithm: str, auth_data: str) -> int:
    users.lock_user(txn, user_id)
    if key_backups.count(txn, user_id) >= MAX_BACKUPS:
        raise invalid_param(f"A user has at most {MAX_BACKUPS} backups: delete old ones.")
    return key_backups.add(txn, user_id, algorithm, auth_data)


def _number(version: str) -> int:
    """The number of a version; 0 for what can be none."""
    return int(version) if version.isascii() and version.isdigit() and len(version) < 16 else 0


def _existing(txn: Transaction, user_id: str, version: str, lock: bool = False) -> BackupRow:
    found = key_backups.get(txn, user_id, _number(version), lock=lock)
    if found is None or str(found.version) != version:
        raise not_found("There is no such backup.")
    return found


def _change(txn: Transaction, user_id: str, version: str, algorithm: str, auth_data: str) -> None:
    found = _existing(txn, user_id, version, lock=True)
    if found.algorithm != algorithm:
        raise invalid_param("The algorithm of a backup does not change.")
    key_backups.set_auth_data(txn, user_id, found.version, auth_data)


def _delete(txn: Transaction, user_id: str, version: str) -> None:
    number = _number(version)
    if key_backups.get(txn, user_id, number, lock=True) is not None:
        key_backups.delete(txn, user_id, number)
    elif not 0 < number <= key_backups.last_number(txn, user_id):
        raise not_found("There is no such backup.")


def _keys(
    txn: Transaction, user_id: str, version: str, room_id: str | None, session_id: str | None
) -> list[KeyRow]:
    backup = _existing(txn, user_id, version)
    return key_backups.keys_of(txn, user_id, backup.version, room_id, session_id)


def _put(
    txn: Transaction, user_id: str, version: str, keys: Mapping[tuple[str, str], KeyRow]
) -> Change:
    newest = key_backups.current(txn, user_id)
    if newest is None:
        raise not_found("There is no backup.")
    if str(newest.version) != version:
        raise wrong_version(newest.version)
    backup = _existing(txn, user_id, version, lock=True)
    sessions = {session_id for _, session_id in keys}
    known = key_backups.qualities(txn, user_id, backup.version, sessions)
    better = [
        key for place, key in keys.items() if place not in known or key.quality < known[place]
    ]
    more = sum((key.room_id, key.session_id) not in known for key in better)
    if backup.keys + more > MAX_KEYS:
        raise too_large(f"A backup has at most {MAX_KEYS} keys.")
    if better:
        key_backups.put(txn, user_id, backup.version, better)
        key_backups.changed(txn, user_id, backup.version, more)
    return Change(str(backup.etag + bool(better)), backup.keys + more)


def _delete_keys(
    txn: Transaction, user_id: str, version: str, room_id: str | None, session_id: str | None
) -> Change:
    backup = _existing(txn, user_id, version, lock=True)
    gone = key_backups.delete_keys(txn, user_id, backup.version, room_id, session_id)
    if gone:
        key_backups.changed(txn, user_id, backup.version, -gone)
    return Change(str(backup.etag + bool(gone)), backup.keys - gone)


def wrong_version(current: int) -> MatrixError:
    """403 M_WRONG_ROOM_KEYS_VERSION."""
    return MatrixError(
        403,
        "M_WRONG_ROOM_KEYS_VERSION",
        "This is not the newest backup.",
        current_version=str(current),
    )


def _row(key: SentKey) -> KeyRow:
    for name in (key.room_id, key.session_id):
        _check_name(name)
    quality = Quality(not key.is_verified, key.first_message_index, key.forwarded_count)
    return KeyRow(key.room_id, key.session_id, quality, _encode(key.session_data))


def _check_name(name: str) -> None:
    if not name or "\x00" in name or len(name.encode()) > MAX_NAME_BYTES:
        raise invalid_param(f"An ID or a name has 1 to {MAX_NAME_BYTES} bytes.")


def _encode(data: JsonObject) -> str:
    try:
        canonical.check(data, strict=False)
        encoded = canonical.encode_plain(data)
    except canonical.CanonicalJSONError as error:
        raise bad_json(str(error)) from None
    if len(encoded) > MAX_DATA_BYTES:
        raise too_large(f"At most {MAX_DATA_BYTES} bytes of data for one key or backup.")
    return encoded.decode()
