"""Finding thumbnails for those who ask.

Of another server's picture the whole is fetched, and made smaller here. If that server's picture
is larger than what is fetched, its own thumbnail is.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from homeserver.core.errors import MatrixError
from homeserver.media.downloads import Downloads, Scanner, Wish, patience_ms
from homeserver.media.thumbnails import Size, Thumbnails
from storage.media_thumbnails import Thumbnail


class Picture(NamedTuple):
    """A thumbnail, and whether it may be kept by anybody on the way to the client."""

    thumbnail: Thumbnail
    is_public: bool


class RemoteThumbnails(Protocol):
    """Fetches thumbnails that other servers made: see `homeserver.media.remote`."""

    async def fetch_thumbnail(
        self, server_name: str, media_id: str, size: Size, wait_ms: int
    ) -> Thumbnail:
        """Raises MatrixError."""


class Pictures:
    """Finds thumbnails. All methods raise MatrixError."""

    remote: RemoteThumbnails | None = None
    scanner: Scanner | None = None

    def __init__(self, downloads: Downloads, thumbnails: Thumbnails) -> None:
        self._downloads = downloads
        self._thumbnails = thumbnails

    async def find(self, server_name: str, media_id: str, wish: Wish, size: Size) -> Picture:
        """The thumbnail of a file; see `Downloads.find` and `Thumbnails.of`."""
        try:
            found = await self._downloads.find(server_name, media_id, wish)
        except MatrixError as error:
            is_too_large = error.status == 502 and error.errcode == "M_TOO_LARGE"
            if not is_too_large or self.remote is None or not wish.authenticated:
                raise
            wait_ms = patience_ms(wish)
            made = await self.remote.fetch_thumbnail(server_name, media_id, size, wait_ms)
            if self.scanner is not None and not made.is_clean:
                await self.scanner.check(made.sha256, made.store_name)
            return Picture(made, is_public=False)
        return Picture(await self._thumbnails.of(found, size), not found.row.authenticated)
