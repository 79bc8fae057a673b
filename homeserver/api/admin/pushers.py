"""Where users have themselves notified."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.administration import AccountAdministration
from homeserver.users.pushers import Pushers, shown
from homeserver.web.endpoint import Auth, endpoint


class UserPushers(msgspec.Struct):
    pushers: list[JsonObject]
    total: int


@endpoint("GET", "/_synapse/admin/v1/users/{user_id}/pushers", auth=Auth.ADMIN, rate="read")
async def get_user_pushers(
    user_id: UserID, administration: AccountAdministration, pushers: Pushers
) -> UserPushers:
    """A user's pushers."""
    await administration.known(user_id)
    rows = await pushers.of_user(user_id)
    return UserPushers([shown(row) for row in rows], len(rows))


ENDPOINTS = [get_user_pushers]
