"""Users of this server are invited (Server-server API, "Inviting to a room")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.core.ids import EventID, RoomID, ServerName
from homeserver.core.types import JsonObject
from homeserver.rooms.received_invites import Invitation, ReceivedInvites
from homeserver.web.endpoint import Auth, RawJson, endpoint
from homeserver.web.responses import encode_json


class InviteBody(msgspec.Struct, frozen=True):
    room_version: str
    event: dict[str, Any]
    invite_room_state: Any = None


class SignedInvite(msgspec.Struct, frozen=True):
    event: JsonObject


@endpoint(
    "PUT",
    "/_matrix/federation/v2/invite/{room_id}/{event_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    lenient_json=True,
)
async def send_invite(
    origin: ServerName,
    room_id: RoomID,
    event_id: EventID,
    body: InviteBody,
    received_invites: ReceivedInvites,
) -> SignedInvite:
    """Take an invite, and sign it."""
    invitation = Invitation(room_id, event_id, body.event, body.invite_room_state)
    return SignedInvite(await received_invites.receive(origin, body.room_version, invitation))


@endpoint(
    "PUT",
    "/_matrix/federation/v1/invite/{room_id}/{event_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    lenient_json=True,
    returns=tuple[int, SignedInvite],
)
async def send_invite_v1(
    origin: ServerName,
    room_id: RoomID,
    event_id: EventID,
    body: JsonObject,
    received_invites: ReceivedInvites,
) -> RawJson:
    """As version 2, for rooms of versions 1 and 2: the body is the event."""
    unsigned = body.get("unsigned")
    room_state = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
    invitation = Invitation(room_id, event_id, body, room_state)
    signed = await received_invites.receive_v1(origin, invitation)
    return RawJson(encode_json([200, {"event": signed}]))


ENDPOINTS = [send_invite, send_invite_v1]
