"""Rooms that this server is in, as far as other servers may ask it to let them in.

Server-server API, "Joining Rooms", "Restricted rooms", "Server Access Control Lists (ACLs)".
"""

from __future__ import annotations

import json

from homeserver.core import errors
from homeserver.core.errors import MatrixError
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject
from homeserver.rooms import restricted
from homeserver.rooms.server_access import check_acl
from storage import memberships, partial_rooms, residence, rooms, state
from storage.rooms import RoomRow
from storage.transaction import Transaction

_CREATE = ("m.room.create", "")
_POWER = ("m.room.power_levels", "")
_RULES = ("m.room.join_rules", "")


def resident_room(txn: Transaction, room_id: str, origin: str) -> tuple[RoomRow, RoomVersion]:
    """A room that a user of this server is joined to, for another server to deal with.

    Raises:
        MatrixError: 404 `M_NOT_FOUND` if nobody here is in the room, or all of its state is not
            known here yet; 403 `M_FORBIDDEN` if the
            room's access control list denies the server.
    """
    room = rooms.get(txn, room_id)
    version = ROOM_VERSIONS.get(room.version) if room is not None else None
    if room is None or version is None or not is_here(txn, room):
        raise errors.not_found("This server is not in this room.")
    if partial_rooms.get(txn, room.room_nid) is not None:
        # What is not known of the state can neither be told nor judged.
        raise errors.not_found("This server is not fully in this room yet.")
    check_acl(txn, room, origin)
    return room, version


def is_here(txn: Transaction, room: RoomRow) -> bool:
    """Whether a user of this server is joined to the room, so that its state is up to date."""
    known = residence.known_rooms(txn, [room.room_id])
    return room.state_root is not None and known[room.room_id].is_here


def incompatible_version(version: str) -> MatrixError:
    """The room's version is none that both servers know."""
    return MatrixError(
        400,
        "M_INCOMPATIBLE_ROOM_VERSION",
        f"The room has version {version!r}, which is not supported by both servers.",
        room_version=version,
    )


def needs_authoriser(txn: Transaction, room: RoomRow, version: RoomVersion, user_id: str) -> bool:
    """Whether a user of another server can join only for being in other rooms."""
    row = state.current(txn, room.room_nid, [_RULES]).get(_RULES)
    if row is None or not restricted.is_restricted(content_of(row.json), version):
        return False
    member = memberships.get(txn, room.room_nid, user_id)
    return member is None or member.membership not in ("join", "invite")


def authorise(txn: Transaction, room: RoomRow, version: RoomVersion, user_id: str) -> str:
    """The local user to name in a join for which `needs_authoriser` is true.

    A condition counts only if this server is in the room that it names: of others it knows
    nothing, or nothing that still holds.

    Raises:
        MatrixError: 400 `M_UNABLE_TO_AUTHORISE_JOIN` if no condition is met by what this server
            knows and there are some that it cannot judge; 400 `M_UNABLE_TO_GRANT_JOIN` if one is
            met but nobody here may invite; 403 `M_FORBIDDEN` if none is met.
    """
    rows = state.current(txn, room.room_nid, [_CREATE, _POWER, _RULES])
    unknown = False
    for room_id in restricted.allowed_rooms(content_of(rows[_RULES].json)):
        allowed = rooms.get(txn, room_id)
        if allowed is None or not is_here(txn, allowed):
            unknown = True
            continue
        member = memberships.get(txn, allowed.room_nid, user_id)
        if member is not None and member.membership == "join":
            break
    else:
        if unknown:
            raise MatrixError(
                400,
                "M_UNABLE_TO_AUTHORISE_JOIN",
                "This server is not in all of the rooms whose members may join.",
            )
        raise errors.forbidden(f"{user_id} is in none of the rooms whose members may join.")
    name = restricted.inviter(txn, room.room_nid, version, rows)
    if name is None:
        raise MatrixError(
            400, "M_UNABLE_TO_GRANT_JOIN", "No user of this server may invite to this room."
        )
    return name


def content_of(text: str) -> JsonObject:
    """The content of a stored event."""
    content: JsonObject = json.loads(text)["content"]
    return content
