"""Searching users (Client-server API, "User Directory")."""

from __future__ import annotations

from typing import Annotated

import msgspec

from homeserver.core.types import JsonObject
from homeserver.rooms.user_directory import DEFAULT_LIMIT, UserDirectory
from homeserver.web.endpoint import Auth, Requester, endpoint


class UserSearch(msgspec.Struct, frozen=True):
    search_term: str
    limit: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_LIMIT


class FoundUsers(msgspec.Struct, frozen=True):
    results: list[JsonObject]
    limited: bool


@endpoint("POST", "/_matrix/client/v3/user_directory/search", auth=Auth.ACCESS_TOKEN, rate="read")
async def search_users(
    requester: Requester, body: UserSearch, directory: UserDirectory
) -> FoundUsers:
    """Find users by name or ID."""
    results, limited = await directory.search(requester.user_id, body.search_term, body.limit)
    return FoundUsers(results, limited)


ENDPOINTS = [search_users]
