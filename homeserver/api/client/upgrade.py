"""Room upgrades (client-server API, same heading)."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import RoomID
from homeserver.rooms.upgrade import RoomUpgrades
from homeserver.web.endpoint import Auth, Requester, endpoint


class UpgradeBody(msgspec.Struct, frozen=True):
    new_version: str
    additional_creators: list[str] | None = None


class UpgradedRoom(msgspec.Struct, frozen=True):
    replacement_room: str


@endpoint(
    "POST",
    "/_matrix/client/v3/rooms/{room_id}/upgrade",
    auth=Auth.ACCESS_TOKEN,
    rate="create_room",
    refuse_suspended=True,
)
async def upgrade_room(
    requester: Requester, room_id: RoomID, body: UpgradeBody, upgrades: RoomUpgrades
) -> UpgradedRoom:
    """Replace a room by one of another version."""
    new_room_id = await upgrades.upgrade(
        requester, room_id, body.new_version, body.additional_creators
    )
    return UpgradedRoom(new_room_id)


ENDPOINTS = [upgrade_room]
