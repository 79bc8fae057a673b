"""The link that ends e-mail about missed messages, and what mail programs do with it (RFC 8058).

Looking at the page changes nothing: programs that look into mail follow links.
"""

from __future__ import annotations

import msgspec

from homeserver.api.pages import Pages, form_of
from homeserver.core.errors import MatrixError
from homeserver.users.pushers import Pushers
from homeserver.web.endpoint import Auth, Request, Response, endpoint

_PATH = "/_synapse/client/unsubscribe"
_OLD_PATH = "/_matrix/client/unstable/pushers/remove"
_MAX_FORM = 16 * 1024


class Link(msgspec.Struct, frozen=True):
    """`token` of the link."""

    token: str = ""


@endpoint("GET", _PATH, auth=Auth.NONE, rate="read", also=(_OLD_PATH,))
async def get_unsubscribe(query: Link, pushers: Pushers, pages: Pages) -> Response:
    """The page that asks whether there shall be no more e-mail."""
    row = await pushers.by_link(query.token)
    return pages.page("unsubscribe.html", done=row is None, token=query.token)


@endpoint("POST", _PATH, auth=Auth.NONE, rate="write", also=(_OLD_PATH,), max_body=_MAX_FORM)
async def post_unsubscribe(
    request: Request, query: Link, pushers: Pushers, pages: Pages
) -> Response:
    """End it: by the button of the page, or by that of a mail program."""
    try:
        token = query.token or form_of(request).get("token", "")
    except MatrixError as error:
        return pages.error(error)
    await pushers.remove_by_link(token)
    return pages.page("unsubscribe.html", done=True, token="")


ENDPOINTS = [get_unsubscribe, post_unsubscribe]
