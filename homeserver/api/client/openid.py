"""OpenID tokens (Client-server API, "OpenID")."""

from __future__ import annotations

import msgspec

from homeserver.api.client.login import LoginSettings
from homeserver.core.errors import forbidden
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.openid import OpenId
from homeserver.web.endpoint import Auth, Requester, endpoint


class OpenIdAnswer(msgspec.Struct):
    access_token: str
    token_type: str
    matrix_server_name: str
    expires_in: int


@endpoint(
    "POST",
    "/_matrix/client/v3/user/{user_id}/openid/request_token",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    optional_body=True,
)
async def request_openid_token(
    requester: Requester,
    user_id: UserID,
    body: JsonObject,
    settings: LoginSettings,
    openid: OpenId,
) -> OpenIdAnswer:
    """A token with which a third party can find out who the requester is."""
    if user_id != requester.user_id:
        raise forbidden("You cannot ask for a token of another user.")
    token = await openid.request_token(user_id)
    return OpenIdAnswer(token.access_token, "Bearer", settings.server_name, token.expires_in_s)


ENDPOINTS = [request_openid_token]
