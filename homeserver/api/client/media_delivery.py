"""How files are given to clients: headers, ranges, redirects."""

from __future__ import annotations

from typing import NamedTuple

from homeserver.core import media as names
from homeserver.core.errors import MatrixError
from homeserver.media.reading import addressed, opened
from homeserver.media.store import Store
from homeserver.web.endpoint import Request, Response

REDIRECT_S = 300
"""For how long an address of the bucket is good."""

_CACHE_S = 86_400
_SAFE = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
        "style-src 'unsafe-inline'; media-src 'self'; object-src 'self';"
    ),
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive, noimageindex",
    "Referrer-Policy": "no-referrer",
}
"""What keeps a browser from running what is in a file ("Content repository", "Security
considerations")."""


class Delivery(NamedTuple):
    """A file to be given: where the store has it, and what is said of it."""

    store_name: str
    sha256: str
    size: int
    content_type: str
    filename: str | None
    is_public: bool
    may_redirect: bool


async def deliver(store: Store, request: Request, delivery: Delivery) -> Response:
    """The answer to a request for a file. Raises MatrixError (404, 416, 503)."""
    # A type without a charset is read as UTF-8, not guessed.
    content_type = delivery.content_type
    if content_type == "text/plain":
        content_type = "text/plain; charset=utf-8"
    disposition = names.disposition(delivery.filename, content_type)
    etag = f'"{delivery.sha256[:32]}"'
    scope = "public" if delivery.is_public else "private"
    headers = {
        **_SAFE,
        "Cache-Control": f"{scope}, max-age={_CACHE_S}, immutable",
        "ETag": etag,
    }
    if _is_known(request, etag):
        return Response(304, b"", headers)
    if delivery.may_redirect and request.method == "GET":  # addresses are signed for GET alone
        address = await addressed(store, delivery.store_name, content_type, disposition, REDIRECT_S)
        if address is not None:
            # Kept for less long than the address is good.
            headers["Cache-Control"] = f"private, max-age={REDIRECT_S // 2}"
            return Response(307, b"", {**headers, "Location": address})
    headers |= {
        "Content-Type": content_type,
        "Content-Disposition": disposition,
        "Accept-Ranges": "bytes",
    }
    status, start, end = _part(request, delivery.size, etag, headers)
    body = await opened(store, delivery.store_name, start, end)
    headers["Content-Length"] = str(end - start)
    return Response(status, body, headers)


def _is_known(request: Request, etag: str) -> bool:
    header = request.header("if-none-match")
    if header is None:
        return False
    known = {each.strip().removeprefix("W/") for each in header.split(",")}
    return etag in known or "*" in known


def _part(request: Request, size: int, etag: str, headers: dict[str, str]) -> tuple[int, int, int]:
    """Status, and which bytes are given."""
    if request.header("if-range") not in (None, etag):
        return 200, 0, size
    try:
        wanted = names.byte_range(request.header("range"), size)
    except names.UnsatisfiableRange:
        error = MatrixError(416, "M_UNKNOWN", "No byte of the file is in this range.")
        error.headers["Content-Range"] = f"bytes */{size}"
        raise error from None
    if wanted is None:
        return 200, 0, size
    headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{size}"
    return 206, wanted.start, wanted.end
