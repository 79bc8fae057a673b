"""Giving files to other servers (server-server API, "Content Repository").

Only this server's own: files of third servers are theirs to give.
"""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.core import media as names
from homeserver.core.ids import ServerName
from homeserver.media.downloads import DEFAULT_WAIT_MS, Downloads, Wish
from homeserver.media.files import MediaFiles
from homeserver.media.multipart import MultipartWriter
from homeserver.media.pictures import Pictures
from homeserver.media.reading import addressed, opened
from homeserver.media.store import Store
from homeserver.media.thumbnails import Method, Size
from homeserver.media.uploads import Uploads
from homeserver.web.endpoint import Auth, Response, endpoint

REDIRECT_S = 300


class DownloadQuery(msgspec.Struct):
    timeout_ms: int = DEFAULT_WAIT_MS


class ThumbnailQuery(msgspec.Struct):
    width: int
    height: int
    method: Method = "scale"
    animated: bool = False
    timeout_ms: int = DEFAULT_WAIT_MS


@endpoint(
    "GET",
    "/_matrix/federation/v1/media/download/{media_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    also=("/_matrix/federation/unstable/org.matrix.msc3916.v2/media/download/{media_id}",),
    long_poll=True,
)
async def download(
    origin: ServerName,
    media_id: str,
    query: DownloadQuery,
    downloads: Downloads,
    uploads: Uploads,
    files: MediaFiles,
) -> Response:
    """A file of a user of this server."""
    wish = Wish(wait_ms=query.timeout_ms, allow_remote=False)
    found = await downloads.find(uploads.rules.server_name, media_id, wish)
    row = found.row
    assert found.store_name is not None
    disposition = names.disposition(row.filename, row.content_type)
    return await _multipart(files.store, found.store_name, row.size, row.content_type, disposition)


@endpoint(
    "GET",
    "/_matrix/federation/v1/media/thumbnail/{media_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    also=("/_matrix/federation/unstable/org.matrix.msc3916.v2/media/thumbnail/{media_id}",),
    long_poll=True,
)
async def thumbnail(
    origin: ServerName,
    media_id: str,
    query: ThumbnailQuery,
    pictures: Pictures,
    uploads: Uploads,
    files: MediaFiles,
) -> Response:
    """A small form of a picture of a user of this server."""
    wish = Wish(wait_ms=query.timeout_ms, allow_remote=False)
    size = Size(query.width, query.height, query.method, query.animated)
    made = (await pictures.find(uploads.rules.server_name, media_id, wish, size)).thumbnail
    ending = made.content_type.partition("/")[2]
    disposition = names.disposition(f"thumbnail.{ending}", made.content_type)
    return await _multipart(files.store, made.store_name, made.size, made.content_type, disposition)


async def _multipart(
    store: Store, store_name: str, size: int, content_type: str, disposition: str
) -> Response:
    headers = {"Content-Type": content_type, "Content-Disposition": disposition}
    address = await addressed(store, store_name, content_type, disposition, REDIRECT_S)
    file: Any = None
    if address is not None:
        headers["Location"] = address
        size = 0
    else:
        file = await opened(store, store_name, 0, size)
    writer = MultipartWriter(headers)
    return Response(
        200,
        writer.body(file),
        {"Content-Type": writer.content_type, "Content-Length": str(writer.length(size))},
    )


ENDPOINTS = [download, thumbnail]
