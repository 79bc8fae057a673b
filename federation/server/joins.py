"""Users of other servers join rooms (Server-server API, "Joining Rooms")."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import EventID, RoomID, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.handshake import Handshake
from homeserver.rooms.join_answers import JoinAnswers
from homeserver.web.endpoint import Auth, RawJson, endpoint


class VersionsQuery(msgspec.Struct, frozen=True):
    ver: list[str] = msgspec.field(default_factory=lambda: ["1"])


class SendJoinQuery(msgspec.Struct, frozen=True):
    omit_members: bool = False


class TemplateAnswer(msgspec.Struct, frozen=True):
    room_version: str
    event: JsonObject


class SendJoinAnswer(msgspec.Struct, frozen=True):
    auth_chain: list[JsonObject]
    state: list[JsonObject]
    members_omitted: bool
    servers_in_room: list[str] | msgspec.UnsetType = msgspec.UNSET
    event: JsonObject | msgspec.UnsetType = msgspec.UNSET


@endpoint(
    "GET",
    "/_matrix/federation/v1/make_join/{room_id}/{user_id}",
    auth=Auth.FEDERATION,
    rate="federation",
)
async def make_join(
    origin: ServerName,
    room_id: RoomID,
    user_id: UserID,
    query: VersionsQuery,
    handshake: Handshake,
) -> TemplateAnswer:
    """A template of the join of a user of the asking server."""
    made = await handshake.make(origin, room_id, user_id, "join", query.ver)
    return TemplateAnswer(made.room_version, made.event)


@endpoint(
    "PUT",
    "/_matrix/federation/v2/send_join/{room_id}/{event_id}",
    auth=Auth.FEDERATION,
    rate="federation_heavy",
    lenient_json=True,
    returns=SendJoinAnswer,
)
async def send_join(
    origin: ServerName,
    room_id: RoomID,
    event_id: EventID,
    body: JsonObject,
    query: SendJoinQuery,
    handshake: Handshake,
    answers: JoinAnswers,
) -> RawJson:
    """Take a signed join into its room; the answer is the state before it."""
    admitted = await handshake.send(origin, room_id, event_id, body, "join")
    return RawJson(await answers.join(admitted, omit_members=query.omit_members))


@endpoint(
    "PUT",
    "/_matrix/federation/v1/send_join/{room_id}/{event_id}",
    auth=Auth.FEDERATION,
    rate="federation_heavy",
    lenient_json=True,
    returns=tuple[int, SendJoinAnswer],
)
async def send_join_v1(
    origin: ServerName,
    room_id: RoomID,
    event_id: EventID,
    body: JsonObject,
    handshake: Handshake,
    answers: JoinAnswers,
) -> RawJson:
    """As version 2, answered in the form of old servers: a pair with the status."""
    admitted = await handshake.send(origin, room_id, event_id, body, "join")
    return RawJson(b"[200," + await answers.join(admitted) + b"]")


ENDPOINTS = [make_join, send_join, send_join_v1]
