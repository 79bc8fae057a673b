"""Users of other servers leave rooms and reject invites (Server-server API, "Leaving Rooms")."""

from __future__ import annotations

from federation.server.joins import TemplateAnswer
from homeserver.core.ids import EventID, RoomID, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.handshake import Handshake
from homeserver.web.endpoint import EMPTY, Auth, Empty, RawJson, endpoint


@endpoint(
    "GET",
    "/_matrix/federation/v1/make_leave/{room_id}/{user_id}",
    auth=Auth.FEDERATION,
    rate="federation",
)
async def make_leave(
    origin: ServerName, room_id: RoomID, user_id: UserID, handshake: Handshake
) -> TemplateAnswer:
    """A template of the leave of a user of the asking server."""
    made = await handshake.make(origin, room_id, user_id, "leave")
    return TemplateAnswer(made.room_version, made.event)


@endpoint(
    "PUT",
    "/_matrix/federation/v2/send_leave/{room_id}/{event_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    lenient_json=True,
)
async def send_leave(
    origin: ServerName,
    room_id: RoomID,
    event_id: EventID,
    body: JsonObject,
    handshake: Handshake,
) -> Empty:
    """Take a signed leave into its room."""
    await handshake.send(origin, room_id, event_id, body, "leave")
    return EMPTY


@endpoint(
    "PUT",
    "/_matrix/federation/v1/send_leave/{room_id}/{event_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    lenient_json=True,
    returns=tuple[int, Empty],
)
async def send_leave_v1(
    origin: ServerName,
    room_id: RoomID,
    event_id: EventID,
    body: JsonObject,
    handshake: Handshake,
) -> RawJson:
    """As version 2, answered in the form of old servers: a pair with the status."""
    await handshake.send(origin, room_id, event_id, body, "leave")
    return RawJson(b"[200,{}]")


ENDPOINTS = [make_leave, send_leave, send_leave_v1]
