"""Profiles (Client-server API, "Profiles")."""

from __future__ import annotations

from homeserver.core.errors import missing_param
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.profiles import Profiles
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_FIELD = "/_matrix/client/v3/profile/{user_id}/{field}"
_UNSTABLE = ("/_matrix/client/unstable/uk.tcpip.msc4133/profile/{user_id}/{field}",)


@endpoint("GET", "/_matrix/client/v3/profile/{user_id}", auth=Auth.NONE, rate="read")
async def get_profile(user_id: UserID, profiles: Profiles) -> JsonObject:
    """A user's whole profile."""
    return await profiles.get(user_id)


@endpoint("GET", _FIELD, auth=Auth.NONE, rate="read", also=_UNSTABLE)
async def get_profile_field(user_id: UserID, field: str, profiles: Profiles) -> JsonObject:
    """One field of a user's profile."""
    return {field: await profiles.get_field(user_id, field)}


@endpoint(
    "PUT",
    _FIELD,
    auth=Auth.GUEST_OK,
    rate="write",
    also=_UNSTABLE,
    lenient_json=True,
    refuse_suspended=True,
)
async def put_profile_field(
    requester: Requester, user_id: UserID, field: str, body: JsonObject, profiles: Profiles
) -> Empty:
    """Set one field of the requester's profile."""
    profiles.check_may_change(requester, user_id, field)
    if field not in body:
        raise missing_param(field)
    await profiles.set_field(requester, user_id, field, body[field])
    return EMPTY


@endpoint("DELETE", _FIELD, auth=Auth.GUEST_OK, rate="write", also=_UNSTABLE, refuse_suspended=True)
async def delete_profile_field(
    requester: Requester, user_id: UserID, field: str, profiles: Profiles
) -> Empty:
    """Remove one field of the requester's profile."""
    await profiles.delete_field(requester, user_id, field)
    return EMPTY


ENDPOINTS = [get_profile, get_profile_field, put_profile_field, delete_profile_field]
