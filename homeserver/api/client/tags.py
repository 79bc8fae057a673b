"""Tags of rooms (Client-server API, "Room Tagging")."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.users.tags import Tags
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_TAGS = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags"
_TAG = _TAGS + "/{tag}"


class RoomTags(msgspec.Struct, frozen=True):
    """Tags of a room, by name."""

    tags: dict[str, JsonObject]


@endpoint("GET", _TAGS, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_tags(requester: Requester, user_id: UserID, room_id: RoomID, tags: Tags) -> RoomTags:
    """The requester's tags of a room."""
    return RoomTags(await tags.get(requester, user_id, room_id))


@endpoint("PUT", _TAG, auth=Auth.ACCESS_TOKEN, rate="write", lenient_json=True, optional_body=True)
async def put_tag(
    requester: Requester, user_id: UserID, room_id: RoomID, tag: str, body: JsonObject, tags: Tags
) -> Empty:
    """Add a tag to a room, or change it."""
    await tags.put(requester, user_id, room_id, tag, body)
    return EMPTY


@endpoint("DELETE", _TAG, auth=Auth.ACCESS_TOKEN, rate="write")
async def delete_tag(
    requester: Requester, user_id: UserID, room_id: RoomID, tag: str, tags: Tags
) -> Empty:
    """Remove a tag from a room."""
    await tags.delete(requester, user_id, room_id, tag)
    return EMPTY


ENDPOINTS = [get_tags, put_tag, delete_tag]
