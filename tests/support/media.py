"""Sending and getting files in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.client import FullAnswer
from tests.support.server import TestServer, User

UPLOAD = "/_matrix/media/v3/upload"
DOWNLOAD = "/_matrix/client/v1/media/download"


async def upload(
    user: User, data: bytes, content_type: str | None = "image/png", filename: str | None = None
) -> str:
    """Upload a file that must be taken; `server/id`."""
    answer = await try_upload(user, data, content_type, filename)
    assert answer.status == 200, (answer.status, answer.body)
    uri: str = answer.body["content_uri"]
    assert uri.startswith("mxc://")
    return uri[6:]


async def try_upload(
    user: User,
    data: bytes,
    content_type: str | None = "image/png",
    filename: str | None = None,
    *,
    path: str = UPLOAD,
    method: str = "POST",
) -> FullAnswer:
    """The answer to an upload."""
    return await user.client.full(
        method,
        path,
        body=data,
        headers={"Content-Type": content_type} if content_type is not None else {},
        query={"filename": filename} if filename is not None else {},
    )


async def download(
    user: User, name: str, path: str = DOWNLOAD, headers: Any = None, **query: Any
) -> FullAnswer:
    """The answer to a download of `server/id`."""
    return await user.client.full("GET", f"{path}/{name}", headers=headers, query=query)


def stored_files(server: TestServer) -> list[Path]:
    """All files in the server's directory for media, those on the way included."""
    directory = server.homeserver.config.data_directory / "media"
    return sorted(path for path in directory.rglob("*") if path.is_file())
