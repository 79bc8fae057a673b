"""Getting files (Client-server API, "Content repository").

The paths below /_matrix/media need no access token; they are frozen: what came since is not given
there, unless the operator wants it so ("Content repository", "Client behaviour").
"""

from __future__ import annotations

import msgspec

from homeserver.api.client.media_delivery import Delivery, deliver
from homeserver.core import media as names
from homeserver.core.ids import ServerName
from homeserver.media.downloads import DEFAULT_WAIT_MS, Downloads, Wish
from homeserver.media.files import MediaFiles
from homeserver.media.pictures import Picture, Pictures
from homeserver.media.thumbnails import Method, Size
from homeserver.web.endpoint import Auth, Request, Response, endpoint


class DownloadQuery(msgspec.Struct):
    timeout_ms: int = DEFAULT_WAIT_MS


class LegacyQuery(msgspec.Struct):
    timeout_ms: int = DEFAULT_WAIT_MS
    allow_remote: bool = True
    allow_redirect: bool = False


_DOWNLOAD = "media/download/{server_name}/{media_id}"


@endpoint(
    "GET",
    f"/_matrix/client/v1/{_DOWNLOAD}/{{file_name}}",
    auth=Auth.GUEST_OK,
    rate="download",
    also=(
        f"/_matrix/client/v1/{_DOWNLOAD}",
        f"/_matrix/client/unstable/org.matrix.msc3916/{_DOWNLOAD}",
        f"/_matrix/client/unstable/org.matrix.msc3916/{_DOWNLOAD}/{{file_name}}",
    ),
    long_poll=True,
)
async def download(
    request: Request,
    server_name: ServerName,
    media_id: str,
    query: DownloadQuery,
    downloads: Downloads,
    files: MediaFiles,
    file_name: str = "",
) -> Response:
    """A file, from here or another server."""
    wish = Wish(wait_ms=query.timeout_ms)
    return await _download(
        request, server_name, media_id, wish, downloads, files, file_name, may_redirect=True
    )


@endpoint(
    "GET",
    "/_matrix/media/v3/download/{server_name}/{media_id}/{file_name}",
    auth=Auth.NONE,
    rate="download",
    also=("/_matrix/media/v3/download/{server_name}/{media_id}",),
    long_poll=True,
)
async def download_legacy(
    request: Request,
    server_name: ServerName,
    media_id: str,
    query: LegacyQuery,
    downloads: Downloads,
    files: MediaFiles,
    file_name: str = "",
) -> Response:
    """A file, without an access token."""
    wish = Wish(query.timeout_ms, query.allow_remote, authenticated=False)
    return await _download(
        request,
        server_name,
        media_id,
        wish,
        downloads,
        files,
        file_name,
        may_redirect=query.allow_redirect,
    )


async def _download(
    request: Request,
    server_name: str,
    media_id: str,
    wish: Wish,
    downloads: Downloads,
    files: MediaFiles,
    file_name: str,
    *,
    may_redirect: bool,
) -> Response:
    found = await downloads.find(server_name, media_id, wish)
    row = found.row
    assert found.store_name is not None and row.sha256 is not None
    delivery = Delivery(
        store_name=found.store_name,
        sha256=row.sha256,
        size=row.size,
        content_type=row.content_type,
        filename=names.filename(file_name) or row.filename,
        is_public=not row.authenticated,
        may_redirect=may_redirect,
    )
    return await deliver(files.store, request, delivery)


class ThumbnailQuery(msgspec.Struct):
    width: int
    height: int
    method: Method = "scale"
    animated: bool = False
    timeout_ms: int = DEFAULT_WAIT_MS


class LegacyThumbnailQuery(ThumbnailQuery):
    allow_remote: bool = True
    allow_redirect: bool = False


_THUMBNAIL = "media/thumbnail/{server_name}/{media_id}"


@endpoint(
    "GET",
    f"/_matrix/client/v1/{_THUMBNAIL}",
    auth=Auth.GUEST_OK,
    rate="download",
    also=(f"/_matrix/client/unstable/org.matrix.msc3916/{_THUMBNAIL}",),
    long_poll=True,
)
async def thumbnail(
    request: Request,
    server_name: ServerName,
    media_id: str,
    query: ThumbnailQuery,
    pictures: Pictures,
    files: MediaFiles,
) -> Response:
    """A small form of a picture, from here or another server."""
    wish = Wish(wait_ms=query.timeout_ms)
    found = await pictures.find(server_name, media_id, wish, _size(query))
    return await _give_thumbnail(request, found, files, may_redirect=True)


@endpoint(
    "GET",
    "/_matrix/media/v3/thumbnail/{server_name}/{media_id}",
    auth=Auth.NONE,
    rate="download",
    long_poll=True,
)
async def thumbnail_legacy(
    request: Request,
    server_name: ServerName,
    media_id: str,
    query: LegacyThumbnailQuery,
    pictures: Pictures,
    files: MediaFiles,
) -> Response:
    """A small form of a picture, without an access token."""
    wish = Wish(query.timeout_ms, query.allow_remote, authenticated=False)
    found = await pictures.find(server_name, media_id, wish, _size(query))
    return await _give_thumbnail(request, found, files, may_redirect=query.allow_redirect)


def _size(query: ThumbnailQuery) -> Size:
    return Size(query.width, query.height, query.method, query.animated)


async def _give_thumbnail(
    request: Request, found: Picture, files: MediaFiles, *, may_redirect: bool
) -> Response:
    made = found.thumbnail
    delivery = Delivery(
        store_name=made.store_name,
        sha256=made.sha256,
        size=made.size,
        content_type=made.content_type,
        filename="thumbnail." + made.content_type.partition("/")[2],
        is_public=found.is_public,
        may_redirect=may_redirect,
    )
    return await deliver(files.store, request, delivery)


ENDPOINTS = [download, download_legacy, thumbnail, thumbnail_legacy]
