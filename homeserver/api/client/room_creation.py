"""Creating rooms (client-server API, "Creation")."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.core import errors
from homeserver.core.types import JsonObject
from homeserver.rooms.create import InitialState, RoomCreation, WantedRoom
from homeserver.web.endpoint import Auth, Requester, endpoint


class InitialStateEvent(msgspec.Struct, frozen=True):
    type: str
    content: JsonObject
    state_key: str = ""


class CreateRoomBody(msgspec.Struct, frozen=True):
    """See the endpoint in the specification."""

    visibility: Literal["public", "private"] | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] | None = None
    invite_3pid: list[JsonObject] | None = None
    room_version: str | None = None
    creation_content: JsonObject | None = None
    initial_state: list[InitialStateEvent] | None = None
    preset: Literal["private_chat", "public_chat", "trusted_private_chat"] | None = None
    is_direct: bool | None = None
    power_level_content_override: JsonObject | None = None


class CreatedRoom(msgspec.Struct, frozen=True):
    room_id: str


@endpoint(
    "POST",
    "/_matrix/client/v3/createRoom",
    auth=Auth.ACCESS_TOKEN,
    rate="create_room",
    strict_json=True,
    refuse_suspended=True,
)
async def create_room(
    requester: Requester, body: CreateRoomBody, creation: RoomCreation
) -> CreatedRoom:
    """Create a room."""
    if body.invite_3pid:
        raise errors.invalid_param("`invite_3pid`: no identity server is set up here.")
    wanted = WantedRoom(
        room_version=body.room_version,
        visibility=body.visibility or "private",
        preset=body.preset,
        room_alias_name=body.room_alias_name,
        name=body.name,
        topic=body.topic,
        invite=body.invite or [],
        is_direct=bool(body.is_direct),
        creation_content=body.creation_content or {},
        initial_state=[
            InitialState(item.type, item.content, item.state_key)
            for item in body.initial_state or []
        ],
        power_level_content_override=body.power_level_content_override or {},
    )
    return CreatedRoom(await creation.create(requester, wanted))


ENDPOINTS = [create_room]
