"""Whose OpenID token it is (Server-server API, "OpenID")."""

from __future__ import annotations

import msgspec

from homeserver.users.openid import OpenId
from homeserver.web.endpoint import Auth, endpoint


class UserInfoQuery(msgspec.Struct):
    access_token: str


class UserInfoAnswer(msgspec.Struct):
    sub: str


@endpoint("GET", "/_matrix/federation/v1/openid/userinfo", auth=Auth.NONE, rate="read")
async def get_userinfo(query: UserInfoQuery, openid: OpenId) -> UserInfoAnswer:
    """The user whose token this is."""
    return UserInfoAnswer(await openid.user_of(query.access_token))


ENDPOINTS = [get_userinfo]
