"""Users of other servers knock on rooms (Server-server API, "Knocking upon a room")."""

from __future__ import annotations

import msgspec

from federation.server.joins import TemplateAnswer, VersionsQuery
from homeserver.core.ids import EventID, RoomID, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.handshake import Handshake
from homeserver.rooms.join_answers import JoinAnswers
from homeserver.web.endpoint import Auth, RawJson, endpoint


class SendKnockAnswer(msgspec.Struct, frozen=True):
    knock_room_state: list[JsonObject]


@endpoint(
    "GET",
    "/_matrix/federation/v1/make_knock/{room_id}/{user_id}",
    auth=Auth.FEDERATION,
    rate="federation",
)
async def make_knock(
    origin: ServerName,
    room_id: RoomID,
    user_id: UserID,
    query: VersionsQuery,
    handshake: Handshake,
) -> TemplateAnswer:
    """A template of the knock of a user of the asking server."""
    made = await handshake.make(origin, room_id, user_id, "knock", query.ver)
    return TemplateAnswer(made.room_version, made.event)


@endpoint(
    "PUT",
    "/_matrix/federation/v1/send_knock/{room_id}/{event_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    lenient_json=True,
    returns=SendKnockAnswer,
)
async def send_knock(
    origin: ServerName,
    room_id: RoomID,
    event_id: EventID,
    body: JsonObject,
    handshake: Handshake,
    answers: JoinAnswers,
) -> RawJson:
    """Take a signed knock into its room; the answer describes the room."""
    admitted = await handshake.send(origin, room_id, event_id, body, "knock")
    return RawJson(await answers.knock(admitted))


ENDPOINTS = [make_knock, send_knock]
