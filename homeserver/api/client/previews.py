"""Previews of pages (Client-server API, "Content repository")."""

from __future__ import annotations

from typing import Annotated

import msgspec

from homeserver.core.types import JsonObject
from homeserver.media.previews import Previews
from homeserver.web.endpoint import Auth, endpoint


class PreviewQuery(msgspec.Struct, frozen=True):
    url: str
    ts: Annotated[int, msgspec.Meta(ge=0)] | None = None


@endpoint(
    "GET",
    "/_matrix/client/v1/media/preview_url",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    also=(
        "/_matrix/client/unstable/org.matrix.msc3916/media/preview_url",
        "/_matrix/media/v3/preview_url",
        "/_matrix/media/r0/preview_url",
        "/_matrix/media/v1/preview_url",
    ),
)
async def preview_page(query: PreviewQuery, previews: Previews) -> JsonObject:
    """What a page says of itself."""
    return await previews.preview(query.url, query.ts)


ENDPOINTS = [preview_page]
