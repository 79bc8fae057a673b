"""Typing (Client-server API, "Typing Notifications")."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import RoomID, UserID
from homeserver.rooms.typing import Typing
from homeserver.users.presence import PresenceTracker
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint


class TypingState(msgspec.Struct, frozen=True):
    """`timeout` in milliseconds."""

    typing: bool
    timeout: int | None = None


@endpoint(
    "PUT",
    "/_matrix/client/v3/rooms/{room_id}/typing/{user_id}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
)
async def put_typing(
    requester: Requester,
    room_id: RoomID,
    user_id: UserID,
    body: TypingState,
    typing: Typing,
    presence: PresenceTracker,
) -> Empty:
    """Say that the requester types, or no longer does."""
    await typing.set_typing(requester, user_id, room_id, body.typing, body.timeout)
    presence.active(requester.user_id)
    return EMPTY


ENDPOINTS = [put_typing]
