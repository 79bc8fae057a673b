"""Backups of message keys (client-server API, "Server-side key backups")."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec

from homeserver.core.types import JsonObject
from homeserver.encryption.key_backups import (
    Change,
    KeyBackups,
    SentKey,
)
from homeserver.web.endpoint import EMPTY, Auth, Empty, RawJson, Requester, endpoint
from storage.key_backups import BackupRow

_V3 = "/_matrix/client/v3/room_keys"
_UNSTABLE = "/_matrix/client/unstable/room_keys"
MAX_BODY = 32 * 1024 * 1024
"""Bytes: some ten thousand keys, which clients send at once when they move to a new backup."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class BackupBody(msgspec.Struct, frozen=True):
    algorithm: str
    auth_data: JsonObject
    version: str | None = None


class VersionAnswer(msgspec.Struct):
    version: str


class BackupAnswer(msgspec.Struct):
    algorithm: str
    auth_data: JsonObject
    count: int
    etag: str
    version: str


class VersionQuery(msgspec.Struct, frozen=True):
    version: str


class KeyBody(msgspec.Struct, frozen=True):
    first_message_index: Count
    forwarded_count: Count
    is_verified: bool
    session_data: JsonObject


class RoomBody(msgspec.Struct, frozen=True):
    sessions: dict[str, KeyBody]


class AllBody(msgspec.Struct, frozen=True):
    rooms: dict[str, RoomBody]


class ChangeAnswer(msgspec.Struct):
    count: int
    etag: str


@endpoint(
    "POST",
    f"{_V3}/version",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=(f"{_UNSTABLE}/version",),
)
async def post_version(
    requester: Requester, body: BackupBody, backups: KeyBackups
) -> VersionAnswer:
    """Begin a backup."""
    return VersionAnswer(await backups.begin(requester.user_id, body.algorithm, body.auth_data))


@endpoint(
    "GET", f"{_V3}/version", auth=Auth.ACCESS_TOKEN, rate="read", also=(f"{_UNSTABLE}/version",)
)
async def get_current_version(requester: Requester, backups: KeyBackups) -> BackupAnswer:
    """The newest backup."""
    return _backup(await backups.current(requester.user_id))


@endpoint(
    "GET",
    f"{_V3}/version/{{version}}",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    also=(f"{_UNSTABLE}/version/{{version}}",),
)
async def get_version(requester: Requester, version: str, backups: KeyBackups) -> BackupAnswer:
    """One backup."""
    return _backup(await backups.get(requester.user_id, version))


def _backup(row: BackupRow) -> BackupAnswer:
    return BackupAnswer(
        row.algorithm,
        json.loads(row.auth_data),
        row.keys,
        str(row.etag),
        str(row.version),
    )


@endpoint(
    "PUT",
    f"{_V3}/version/{{version}}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=(f"{_UNSTABLE}/version/{{version}}",),
)
async def put_version(
    requester: Requester, version: str, body: BackupBody, backups: KeyBackups
) -> Empty:
    """Replace the `auth_data` of a backup."""
    await backups.change(requester.user_id, version, body.version, body.algorithm, body.auth_data)
    return EMPTY


@endpoint(
    "DELETE",
    f"{_V3}/version/{{version}}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=(f"{_UNSTABLE}/version/{{version}}",),
)
async def delete_version(requester: Requester, version: str, backups: KeyBackups) -> Empty:
    """Delete a backup."""
    await backups.delete(requester.user_id, version)
    return EMPTY


@endpoint(
    "PUT",
    f"{_V3}/keys",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=(f"{_UNSTABLE}/keys",),
    max_body=MAX_BODY,
)
async def put_keys(
    requester: Requester, query: VersionQuery, body: AllBody, backups: KeyBackups
) -> ChangeAnswer:
    """Add keys of many rooms."""
    keys = (
        _sent(room_id, session_id, key)
        for room_id, room in body.rooms.items()
        for session_id, key in room.sessions.items()
    )
    return _changed(await backups.put(requester.user_id, query.version, keys))


@endpoint(
    "PUT",
    f"{_V3}/keys/{{room_id}}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=(f"{_UNSTABLE}/keys/{{room_id}}",),
    max_body=MAX_BODY,
)
async def put_room_keys(
    requester: Requester, room_id: str, query: VersionQuery, body: RoomBody, backups: KeyBackups
) -> ChangeAnswer:
    """Add keys of a room."""
    keys = (_sent(room_id, session_id, key) for session_id, key in body.sessions.items())
    return _changed(await backups.put(requester.user_id, query.version, keys))


@endpoint(
    "PUT",
    f"{_V3}/keys/{{room_id}}/{{session_id}}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=(f"{_UNSTABLE}/keys/{{room_id}}/{{session_id}}",),
)
async def put_session_key(
    requester: Requester,
    room_id: str,
    session_id: str,
    query: VersionQuery,
    body: KeyBody,
    backups: KeyBackups,
) -> ChangeAnswer:
    """Add the key of a session."""
    key = _sent(room_id, session_id, body)
    return _changed(await backups.put(requester.user_id, query.version, [key]))


def _sent(room_id: str, session_id: str, key: KeyBody) -> SentKey:
    return SentKey(
        room_id,
        session_id,
        key.first_message_index,
        key.forwarded_count,
        key.is_verified,
        key.session_data,
    )


def _changed(change: Change) -> ChangeAnswer:
    return ChangeAnswer(change.count, change.etag)


@endpoint(
    "GET",
    f"{_V3}/keys",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    also=(f"{_UNSTABLE}/keys",),
    returns=AllBody,
)
async def get_keys(requester: Requester, query: VersionQuery, backups: KeyBackups) -> RawJson:
    """All keys of a backup."""
    return RawJson(await backups.all_keys(requester.user_id, query.version))


@endpoint(
    "GET",
    f"{_V3}/keys/{{room_id}}",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    also=(f"{_UNSTABLE}/keys/{{room_id}}",),
    returns=RoomBody,
)
async def get_room_keys(
    requester: Requester, room_id: str, query: VersionQuery, backups: KeyBackups
) -> RawJson:
    """The keys of a room."""
    return RawJson(await backups.room_keys(requester.user_id, query.version, room_id))


@endpoint(
    "GET",
    f"{_V3}/keys/{{room_id}}/{{session_id}}",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    also=(f"{_UNSTABLE}/keys/{{room_id}}/{{session_id}}",),
    returns=KeyBody,
)
async def get_session_key(
    requester: Requester,
    room_id: str,
    session_id: str,
    query: VersionQuery,
    backups: KeyBackups,
) -> RawJson:
    """The key of a session."""
    return RawJson(await backups.key(requester.user_id, query.version, room_id, session_id))


@endpoint(
    "DELETE",
    f"{_V3}/keys/{{room_id}}/{{session_id}}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=(
        f"{_V3}/keys",
        f"{_V3}/keys/{{room_id}}",
        f"{_UNSTABLE}/keys",
        f"{_UNSTABLE}/keys/{{room_id}}",
        f"{_UNSTABLE}/keys/{{room_id}}/{{session_id}}",
    ),
)
async def delete_keys(
    requester: Requester,
    query: VersionQuery,
    backups: KeyBackups,
    room_id: str = "",
    session_id: str = "",
) -> ChangeAnswer:
    """Delete keys: all, those of a room, or that of a session."""
    return _changed(
        await backups.delete_keys(
            requester.user_id, query.version, room_id or None, session_id or None
        )
    )


ENDPOINTS = [
    post_version,
    get_current_version,
    get_version,
    put_version,
    delete_version,
    put_keys,
    put_room_keys,
    put_session_key,
    get_keys,
    get_room_keys,
    get_session_key,
    delete_keys,
]
