"""Room membership and knocking (client-server API, same headings)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from homeserver.core import errors
from homeserver.core.ids import InvalidIdentifier, RoomAlias, RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.membership import Membership
from homeserver.rooms.remote_aliases import FoundRoom, RoomFinder
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

Reason = Annotated[str, msgspec.Meta(max_length=20_000)]
_ROOM = "/_matrix/client/v3/rooms/{room_id}"


class ReasonBody(msgspec.Struct, frozen=True):
    reason: Reason | None = None


class TargetBody(msgspec.Struct, frozen=True):
    user_id: UserID
    reason: Reason | None = None


class InviteBody(msgspec.Struct, frozen=True):
    user_id: UserID | None = None
    reason: Reason | None = None
    id_server: str | None = None
    medium: str | None = None
    address: str | None = None


class RoomIdAnswer(msgspec.Struct, frozen=True):
    room_id: str


class JoinedRooms(msgspec.Struct, frozen=True):
    joined_rooms: list[str]


class ViaQuery(msgspec.Struct, frozen=True):
    """Servers by which a room may be joined; `server_name` is the old name of `via`."""

    via: list[str] = []
    server_name: list[str] = []

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.via, *self.server_name)))


async def find_room(room_id_or_alias: str, finder: RoomFinder) -> FoundRoom:
    """The room that a path names. Raises MatrixError 400 `M_INVALID_PARAM`, and see
    `RoomFinder.find`."""
    try:
        if room_id_or_alias.startswith("#"):
            alias = RoomAlias.parse(room_id_or_alias)
        else:
            return FoundRoom(RoomID.parse(room_id_or_alias))
    except InvalidIdentifier as problem:
        raise errors.invalid_param(f"This is no room ID and no alias: {problem.reason}.")
    return await finder.find(alias)


def _reason(reason: str | None) -> JsonObject:
    return {} if reason is None else {"reason": reason}


async def _join(
    requester: Requester,
    room_id: RoomID,
    body: JsonObject,
    membership: Membership,
    via: Sequence[str] = (),
) -> RoomIdAnswer:
    if body.get("third_party_signed") is not None:
        raise errors.invalid_param("`third_party_signed`: no identity server is set up here.")
    reason = body.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise errors.bad_json("`reason` must be a string.")
    content = {
        key: value
        for key, value in body.items()
        if key not in ("third_party_signed", "membership") and (key, value) != ("reason", None)
    }
    await membership.join(requester, room_id, content, via)
    return RoomIdAnswer(room_id)


@endpoint(
    "POST",
    "/_matrix/client/v3/join/{room_id_or_alias}",
    auth=Auth.GUEST_OK,
    rate="join",
    optional_body=True,
    refuse_suspended=True,
)
async def join_room_or_alias(
    requester: Requester,
    room_id_or_alias: str,
    query: ViaQuery,
    body: JsonObject,
    membership: Membership,
    finder: RoomFinder,
) -> RoomIdAnswer:
    """Join a room by its ID or an alias."""
    found = await find_room(room_id_or_alias, finder)
    via = (*query.servers, *found.servers)
    return await _join(requester, found.room_id, body, membership, via)


@endpoint(
    "POST",
    _ROOM + "/join",
    auth=Auth.GUEST_OK,
    rate="join",
    optional_body=True,
    refuse_suspended=True,
)
async def join_room(
    requester: Requester,
    room_id: RoomID,
    query: ViaQuery,
    body: JsonObject,
    membership: Membership,
) -> RoomIdAnswer:
    """Join a room."""
    return await _join(requester, room_id, body, membership, query.servers)


@endpoint(
    "POST",
    "/_matrix/client/v3/knock/{room_id_or_alias}",
    auth=Auth.ACCESS_TOKEN,
    rate="join",
    optional_body=True,
    refuse_suspended=True,
)
async def knock_room(
    requester: Requester,
    room_id_or_alias: str,
    query: ViaQuery,
    body: ReasonBody,
    membership: Membership,
    finder: RoomFinder,
) -> RoomIdAnswer:
    """Ask to be invited to a room."""
    found = await find_room(room_id_or_alias, finder)
    via = (*query.servers, *found.servers)
    await membership.knock(requester, found.room_id, _reason(body.reason), via)
    return RoomIdAnswer(found.room_id)


@endpoint("POST", _ROOM + "/leave", auth=Auth.GUEST_OK, rate="write", optional_body=True)
async def leave_room(
    requester: Requester, room_id: RoomID, body: ReasonBody, membership: Membership
) -> Empty:
    """Leave a room, reject an invite, take back a knock."""
    await membership.leave(requester, room_id, body.reason)
    return EMPTY


@endpoint("POST", _ROOM + "/forget", auth=Auth.GUEST_OK, rate="write", optional_body=True)
async def forget_room(
    requester: Requester, room_id: RoomID, body: JsonObject, membership: Membership
) -> Empty:
    """Forget a left room."""
    await membership.forget(requester.user_id, room_id)
    return EMPTY


@endpoint("POST", _ROOM + "/invite", auth=Auth.ACCESS_TOKEN, rate="invite", refuse_suspended=True)
async def invite_user(
    requester: Requester, room_id: RoomID, body: InviteBody, membership: Membership
) -> Empty:
    """Invite a user."""
    if body.user_id is None:
        if body.address is not None or body.medium is not None:
            raise errors.invalid_param("`address`: no identity server is set up here.")
        raise errors.missing_param("user_id")
    await membership.invite(requester, room_id, body.user_id, _reason(body.reason))
    return EMPTY


@endpoint("POST", _ROOM + "/kick", auth=Auth.ACCESS_TOKEN, rate="write", refuse_suspended=True)
async def kick_user(
    requester: Requester, room_id: RoomID, body: TargetBody, membership: Membership
) -> Empty:
    """Remove a user from a room."""
    await membership.kick(requester, room_id, body.user_id, body.reason)
    return EMPTY


@endpoint("POST", _ROOM + "/ban", auth=Auth.ACCESS_TOKEN, rate="write", refuse_suspended=True)
async def ban_user(
    requester: Requester, room_id: RoomID, body: TargetBody, membership: Membership
) -> Empty:
    """Ban a user from a room."""
    await membership.ban(requester, room_id, body.user_id, body.reason)
    return EMPTY


@endpoint("POST", _ROOM + "/unban", auth=Auth.ACCESS_TOKEN, rate="write", refuse_suspended=True)
async def unban_user(
    requester: Requester, room_id: RoomID, body: TargetBody, membership: Membership
) -> Empty:
    """Lift a ban."""
    await membership.unban(requester, room_id, body.user_id, body.reason)
    return EMPTY


@endpoint("GET", "/_matrix/client/v3/joined_rooms", auth=Auth.GUEST_OK, rate="read")
async def get_joined_rooms(requester: Requester, membership: Membership) -> JoinedRooms:
    """The rooms that the user is in."""
    return JoinedRooms(await membership.joined_rooms(requester.user_id))


ENDPOINTS = [
    join_room_or_alias,
    join_room,
    knock_room,
    leave_room,
    forget_room,
    invite_user,
    kick_user,
    ban_user,
    unban_user,
    get_joined_rooms,
]
