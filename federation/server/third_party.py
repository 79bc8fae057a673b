"""Invites to addresses become invites to users (Server-server API, "Third-party invites")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.core.ids import RoomID, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.third_party_invites import PendingInvite, ThirdPartyInvites
from homeserver.web.endpoint import EMPTY, Auth, Empty, endpoint


class BoundInvite(msgspec.Struct, frozen=True):
    room_id: RoomID
    sender: UserID
    signed: dict[str, Any]


class OnBindBody(msgspec.Struct, frozen=True):
    medium: str
    address: str
    mxid: UserID
    invites: list[BoundInvite]


@endpoint(
    "PUT",
    "/_matrix/federation/v1/exchange_third_party_invite/{room_id}",
    auth=Auth.FEDERATION,
    rate="federation",
)
async def exchange_third_party_invite(
    origin: ServerName,
    room_id: RoomID,
    body: JsonObject,
    third_party_invites: ThirdPartyInvites,
) -> Empty:
    """Invite a user of the asking server, in the place of a third-party invite."""
    await third_party_invites.exchange(origin, room_id, body)
    return EMPTY


@endpoint("PUT", "/_matrix/federation/v1/3pid/onbind", auth=Auth.NONE, rate="write")
async def on_bind(body: OnBindBody, third_party_invites: ThirdPartyInvites) -> Empty:
    """An identity server tells that a user of this server has an address that was invited."""
    invites = [PendingInvite(each.room_id, each.sender, each.signed) for each in body.invites]
    await third_party_invites.bound(body.mxid, invites)
    return EMPTY


ENDPOINTS = [exchange_third_party_invite, on_bind]
