"""The access token that a request carries (Client-server API, "Using access tokens")."""

from __future__ import annotations

from collections.abc import Callable

from homeserver.web.request import Request
from homeserver.web.schema import parse_query


def sent_token(request: Request, in_query: Callable[[str], bool] | None = None) -> str | None:
    """The token in the header; without a header, one in the query of which `in_query` holds."""
    header = request.headers.get(b"authorization")
    if header is not None:
        scheme, _, token = header.decode("utf-8", "replace").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None
    if in_query is None or "access_token=" not in request.raw_query:
        return None
    values = parse_query(request.raw_query).get("access_token")
    return values[0] if values and values[0] and in_query(values[0]) else None
