"""Sending files (Client-server API, "Content repository")."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import ServerName
from homeserver.media.uploads import Described, Uploads
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Requester, endpoint

UPLOAD_BODY = "upload"
"""The name of the limit of what `POST upload` takes: see `Router`."""


class UploadQuery(msgspec.Struct):
    filename: str | None = None


class UploadAnswer(msgspec.Struct):
    content_uri: str


class CreateAnswer(msgspec.Struct):
    content_uri: str
    unused_expires_at: int


class ConfigAnswer(msgspec.Struct):
    size: int = msgspec.field(name="m.upload.size")


def _described(request: Request, query: UploadQuery) -> Described:
    length = request.header("content-length")
    return Described(
        content_type=request.header("content-type"),
        filename=query.filename,
        length=int(length) if length is not None and length.isdigit() else None,
    )


@endpoint(
    "POST",
    "/_matrix/media/v3/upload",
    auth=Auth.ACCESS_TOKEN,
    rate="upload",
    max_body=UPLOAD_BODY,
    stream_body=True,
)
async def upload(
    requester: Requester, request: Request, query: UploadQuery, uploads: Uploads
) -> UploadAnswer:
    """Take a file, and give it an mxc URI."""
    assert request.body_stream is not None
    uri = await uploads.upload(requester.user_id, _described(request, query), request.body_stream)
    return UploadAnswer(uri)


@endpoint("POST", "/_matrix/media/v1/create", auth=Auth.ACCESS_TOKEN, rate="upload")
async def create(requester: Requester, uploads: Uploads) -> CreateAnswer:
    """An mxc URI for a file that is to come."""
    reserved = await uploads.reserve(requester.user_id)
    return CreateAnswer(reserved.uri, reserved.expires_ts)


@endpoint(
    "PUT",
    "/_matrix/media/v3/upload/{server_name}/{media_id}",
    auth=Auth.ACCESS_TOKEN,
    rate="upload",
    max_body=UPLOAD_BODY,
    stream_body=True,
)
async def fill(
    requester: Requester,
    request: Request,
    server_name: ServerName,
    media_id: str,
    query: UploadQuery,
    uploads: Uploads,
) -> Empty:
    """Take the file for an mxc URI that was created before."""
    assert request.body_stream is not None
    described = _described(request, query)
    await uploads.fill(requester.user_id, server_name, media_id, described, request.body_stream)
    return EMPTY


@endpoint(
    "GET",
    "/_matrix/client/v1/media/config",
    auth=Auth.GUEST_OK,
    rate="read",
    also=(
        "/_matrix/client/unstable/org.matrix.msc3916/media/config",
        "/_matrix/media/v3/config",
    ),
)
async def config(uploads: Uploads) -> ConfigAnswer:
    """How large a file may be."""
    return ConfigAnswer(uploads.rules.max_bytes)


ENDPOINTS = [upload, create, fill, config]
