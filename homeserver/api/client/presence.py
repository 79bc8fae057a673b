"""Presence (Client-server API, same heading)."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import UserID
from homeserver.core.presence import State
from homeserver.core.types import JsonObject
from homeserver.users.presence import PresenceTracker
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_STATUS = "/_matrix/client/v3/presence/{user_id}/status"


class PresenceStatus(msgspec.Struct, frozen=True):
    """What a user says of themselves."""

    presence: State
    status_msg: str | None = None


@endpoint("GET", _STATUS, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_presence(
    requester: Requester, user_id: UserID, presence: PresenceTracker
) -> JsonObject:
    """The presence of the requester, or of somebody who shares a room with them."""
    return await presence.get(requester, user_id)


@endpoint("PUT", _STATUS, auth=Auth.ACCESS_TOKEN, rate="write")
async def put_presence(
    requester: Requester, user_id: UserID, body: PresenceStatus, presence: PresenceTracker
) -> Empty:
    """Set the requester's presence."""
    await presence.set_presence(requester, user_id, body.presence, body.status_msg)
    return EMPTY


ENDPOINTS = [get_presence, put_presence]
