"""Media for administrators, as Synapse's "Media" and "Statistics" APIs have them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from homeserver.api.admin import audit
from homeserver.api.admin.paging import Page
from homeserver.core.errors import invalid_param
from homeserver.core.ids import RoomID, ServerName, UserID
from homeserver.media.administration import MediaAdministration
from homeserver.media.removal import MediaRemoval
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint
from storage.media import MediaRow

_V1 = "/_synapse/admin/v1"
_EARLIEST_MS = 30_075_840_000
"""Earlier times are in seconds by mistake."""

Order = Literal[
    "media_id",
    "upload_name",
    "created_ts",
    "last_access_ts",
    "media_length",
    "media_type",
    "quarantined_by",
    "safe_from_quarantine",
]


class RoomMedia(msgspec.Struct):
    local: list[str]
    remote: list[str]


class Quarantined(msgspec.Struct):
    num_quarantined: int


class MediaItem(msgspec.Struct, kw_only=True):
    media_id: str
    media_type: str
    media_length: int
    upload_name: str | None
    created_ts: int
    last_access_ts: int | None
    quarantined_by: str | None
    safe_from_quarantine: bool


class MediaInfo(MediaItem, kw_only=True):
    media_origin: str | None
    user_id: str | None
    filesystem_id: str | None
    url_cache: str | None
    authenticated: bool
    sha256: str | None


class MediaInfoAnswer(msgspec.Struct):
    media_info: MediaInfo


class UserMedia(msgspec.Struct, omit_defaults=True):
    media: list[MediaItem]
    total: int
    next_token: int | None = None


class UserMediaQuery(Page, frozen=True):
    order_by: Order | None = None


class Deleted(msgspec.Struct):
    deleted_media: list[str]
    total: int


class DeleteQuery(msgspec.Struct, frozen=True):
    before_ts: int
    size_gt: int = 0
    keep_profiles: bool = True


class PurgeQuery(msgspec.Struct, frozen=True):
    before_ts: int


class Purged(msgspec.Struct):
    deleted: int


class UsageItem(msgspec.Struct):
    user_id: str
    displayname: str | None
    media_count: int
    media_length: int


class UsageAnswer(msgspec.Struct, omit_defaults=True):
    users: list[UsageItem]
    total: int
    next_token: int | None = None


class UsageQuery(Page, frozen=True):
    order_by: Literal["user_id", "displayname", "media_length", "media_count"] = "user_id"
    from_ts: int = 0
    until_ts: int | None = None
    search_term: str | None = None


@endpoint("GET", f"{_V1}/room/{{room_id}}/media", auth=Auth.ADMIN, rate="read")
async def get_room_media(room_id: RoomID, media: MediaAdministration) -> RoomMedia:
    """Files that events of a room name, as far as they are not encrypted."""
    local, remote = await media.of_room(room_id)
    return RoomMedia(local, remote)


@endpoint(
    "POST",
    f"{_V1}/room/{{room_id}}/media/quarantine",
    auth=Auth.ADMIN,
    rate="write",
    also=(f"{_V1}/quarantine_media/{{room_id}}",),
)
async def quarantine_room(
    requester: Requester, room_id: RoomID, media: MediaAdministration
) -> Quarantined:
    """Withhold all files that events of a room name."""
    count = await media.quarantine_room(room_id, requester.user_id)
    audit.record(requester, "quarantine media of room", room_id, files=count)
    return Quarantined(count)


@endpoint("POST", f"{_V1}/user/{{user_id}}/media/quarantine", auth=Auth.ADMIN, rate="write")
async def quarantine_user(
    requester: Requester, user_id: UserID, removal: MediaRemoval
) -> Quarantined:
    """Withhold all files that a user has uploaded."""
    count = await removal.quarantine_user(user_id, requester.user_id)
    audit.record(requester, "quarantine media of user", user_id, files=count)
    return Quarantined(count)


@endpoint("GET", f"{_V1}/users/{{user_id}}/media", auth=Auth.ADMIN, rate="read")
async def get_user_media(
    user_id: UserID, query: UserMediaQuery, media: MediaAdministration
) -> UserMedia:
    """Files that a user has uploaded."""
    rows, total = await _user_media(user_id, query, media)
    return UserMedia([MediaItem(**_item(row)) for row in rows], total, query.next(total))


@endpoint("DELETE", f"{_V1}/users/{{user_id}}/media", auth=Auth.ADMIN, rate="write")
async def delete_user_media(
    requester: Requester,
    user_id: UserID,
    query: UserMediaQuery,
    media: MediaAdministration,
    removal: MediaRemoval,
) -> Deleted:
    """Remove files that a user has uploaded: a page of them."""
    rows, _ = await _user_media(user_id, query, media)
    await removal.delete(rows)
    audit.record(requester, "delete media of user", user_id, files=len(rows))
    return _deleted(rows)


async def _user_media(
    user_id: UserID, query: UserMediaQuery, media: MediaAdministration
) -> tuple[list[MediaRow], int]:
    start, limit = query.bounds()
    # The newest first, unless an order was asked for.
    backwards = query.dir == "b" if query.dir or query.order_by else True
    order = query.order_by or "created_ts"
    return await media.of_user(user_id, order, backwards=backwards, start=start, limit=limit)


@endpoint(
    "POST",
    f"{_V1}/media/quarantine/{{server_name}}/{{media_id}}",
    auth=Auth.ADMIN,
    rate="write",
)
async def quarantine(
    requester: Requester, server_name: ServerName, media_id: str, media: MediaAdministration
) -> Empty:
    """Withhold a file."""
    await media.quarantine(server_name, media_id, requester.user_id)
    audit.record(requester, "quarantine media", f"mxc://{server_name}/{media_id}")
    return EMPTY


@endpoint(
    "POST",
    f"{_V1}/media/unquarantine/{{server_name}}/{{media_id}}",
    auth=Auth.ADMIN,
    rate="write",
)
async def unquarantine(
    requester: Requester, server_name: ServerName, media_id: str, media: MediaAdministration
) -> Empty:
    """Give a file again."""
    await media.quarantine(server_name, media_id, None)
    audit.record(requester, "unquarantine media", f"mxc://{server_name}/{media_id}")
    return EMPTY


@endpoint("POST", f"{_V1}/media/protect/{{media_id}}", auth=Auth.ADMIN, rate="write")
async def protect(requester: Requester, media_id: str, media: MediaAdministration) -> Empty:
    """Keep a file of this server from quarantine by user or room, and from going by age."""
    await media.protect(media_id, True)
    audit.record(requester, "protect media", media_id)
    return EMPTY


@endpoint("POST", f"{_V1}/media/unprotect/{{media_id}}", auth=Auth.ADMIN, rate="write")
async def unprotect(requester: Requester, media_id: str, media: MediaAdministration) -> Empty:
    """Undo `protect`."""
    await media.protect(media_id, False)
    audit.record(requester, "unprotect media", media_id)
    return EMPTY


@endpoint("GET", f"{_V1}/media/{{server_name}}/{{media_id}}", auth=Auth.ADMIN, rate="read")
async def get_media(
    server_name: ServerName, media_id: str, media: MediaAdministration
) -> MediaInfoAnswer:
    """What is known of a file."""
    row = await media.known(server_name, media_id)
    is_local = server_name == media.server_name
    info = MediaInfo(
        media_origin=None if is_local else server_name,
        user_id=row.uploader,
        filesystem_id=None if is_local else row.sha256,
        url_cache=None,
        authenticated=bool(row.authenticated),
        sha256=row.sha256,
        **_item(row),
    )
    return MediaInfoAnswer(info)


@endpoint("DELETE", f"{_V1}/media/{{server_name}}/{{media_id}}", auth=Auth.ADMIN, rate="write")
async def delete_media(
    requester: Requester,
    server_name: ServerName,
    media_id: str,
    media: MediaAdministration,
    removal: MediaRemoval,
) -> Deleted:
    """Remove a file of this server."""
    if server_name != media.server_name:
        raise invalid_param("Only files of this server can be deleted.")
    row = await media.known(server_name, media_id)
    await removal.delete([row])
    audit.record(requester, "delete media", row.uri)
    return _deleted([row])


@endpoint("POST", f"{_V1}/media/delete", auth=Auth.ADMIN, rate="write")
async def delete_old_media(
    requester: Requester, query: DeleteQuery, media: MediaAdministration
) -> Deleted:
    """Remove files of this server that nobody asked for since a time."""
    return await _delete_old(requester, query, media)


@endpoint("POST", f"{_V1}/media/{{server_name}}/delete", auth=Auth.ADMIN, rate="write")
async def delete_old_media_of(
    requester: Requester, server_name: ServerName, query: DeleteQuery, media: MediaAdministration
) -> Deleted:
    """The same, at its older path."""
    if server_name != media.server_name:
        raise invalid_param("Only files of this server can be deleted.")
    return await _delete_old(requester, query, media)


async def _delete_old(
    requester: Requester, query: DeleteQuery, media: MediaAdministration
) -> Deleted:
    _check_time(query.before_ts)
    if query.size_gt < 0:
        raise invalid_param("Query parameter size_gt must not be negative.")
    rows = await media.delete_old(query.before_ts, query.size_gt, query.keep_profiles)
    audit.record(requester, "delete old media", media.server_name, files=len(rows))
    return _deleted(rows)


@endpoint("POST", f"{_V1}/purge_media_cache", auth=Auth.ADMIN, rate="write")
async def purge_media_cache(
    requester: Requester, query: PurgeQuery, media: MediaAdministration
) -> Purged:
    """Drop copies of other servers' files that nobody asked for since a time."""
    _check_time(query.before_ts)
    count = await media.purge_remote(query.before_ts)
    audit.record(requester, "purge remote media", media.server_name, files=count)
    return Purged(count)


@endpoint("GET", f"{_V1}/statistics/users/media", auth=Auth.ADMIN, rate="read")
async def get_media_statistics(query: UsageQuery, media: MediaAdministration) -> UsageAnswer:
    """How much users have uploaded."""
    start, limit = query.bounds()
    if query.from_ts < 0 or (query.until_ts is not None and query.until_ts < query.from_ts):
        raise invalid_param("Query parameter until_ts must not be before from_ts.")
    if query.search_term == "":
        raise invalid_param("Query parameter search_term must not be empty.")
    found, total = await media.usage(
        query.order_by,
        backwards=query.dir == "b",
        since=query.from_ts,
        until=query.until_ts,
        search=query.search_term,
        start=start,
        limit=limit,
    )
    return UsageAnswer([UsageItem(*each) for each in found], total, query.next(total))


def _item(row: MediaRow) -> dict[str, Any]:
    return {
        "media_id": row.media_id,
        "media_type": row.content_type,
        "media_length": row.size,
        "upload_name": row.filename,
        "created_ts": row.created_ts,
        "last_access_ts": row.last_access_ts,
        "quarantined_by": row.quarantined_by,
        "safe_from_quarantine": bool(row.protected),
    }


def _deleted(rows: list[MediaRow]) -> Deleted:
    return Deleted([row.media_id for row in rows], len(rows))


def _check_time(ts: int) -> None:
    if ts < 0:
        raise invalid_param("Query parameter before_ts must not be negative.")
    if ts < _EARLIEST_MS:
        raise invalid_param("Query parameter before_ts is from 1970: it must be in milliseconds.")


ENDPOINTS = [
    get_room_media,
    quarantine_room,
    quarantine_user,
    get_user_media,
    delete_user_media,
    quarantine,
    unquarantine,
    protect,
    unprotect,
    get_media,
    delete_media,
    delete_old_media,
    delete_old_media_of,
    purge_media_cache,
    get_media_statistics,
]
