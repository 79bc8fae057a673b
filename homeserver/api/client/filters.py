"""Filters (client-server API, "Filtering")."""

from __future__ import annotations

import msgspec

from homeserver.core.errors import forbidden
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.sync.filters import Filters
from homeserver.web.endpoint import Auth, Requester, endpoint

_FILTER = "/_matrix/client/v3/user/{user_id}/filter"


class FilterId(msgspec.Struct, frozen=True):
    filter_id: str


def _check(requester: Requester, user_id: UserID) -> None:
    if requester.user_id != user_id:
        raise forbidden("Filters are private to their users.")


@endpoint("POST", _FILTER, auth=Auth.GUEST_OK, rate="write", lenient_json=True)
async def post_filter(
    requester: Requester, user_id: UserID, body: JsonObject, filters: Filters
) -> FilterId:
    """Store a filter."""
    _check(requester, user_id)
    return FilterId(await filters.add(user_id, body))


@endpoint("GET", _FILTER + "/{filter_id}", auth=Auth.GUEST_OK, rate="read")
async def get_filter(
    requester: Requester, user_id: UserID, filter_id: str, filters: Filters
) -> JsonObject:
    """A stored filter."""
    _check(requester, user_id)
    return await filters.get(user_id, filter_id)


ENDPOINTS = [post_filter, get_filter]
