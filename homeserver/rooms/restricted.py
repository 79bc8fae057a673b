"""Joining rooms by membership of other rooms (client-server API, "Restricted rooms").

1. A condition `m.room_membership` of the join rules is met by a user who is joined to its room.
2. The join then names a local user who could have invited the joiner, and this server's signature
   on the event vouches for it (room version 8, "Authorisation rules").
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from homeserver.core import errors
from homeserver.core.event import Event
from homeserver.core.ids import InvalidIdentifier, RoomID
from homeserver.core.power_levels import PowerLevels, room_creators
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.requests import StateView
from storage import memberships, rooms, state
from storage.database import Database
from storage.events import EventRow
from storage.transaction import Transaction

_CREATE = ("m.room.create", "")
_POWER = ("m.room.power_levels", "")
_RULES = ("m.room.join_rules", "")
MAX_CONDITIONS = 100
"""Conditions of a room's join rules that are looked at."""


class RestrictedJoins:
    """Decides whether a user may join a room for being in another."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    async def authoriser(self, room_id: str, user_id: str) -> str | None:
        """The local user to name in a join; None if the room is not restricted, or the user does
        not meet its conditions."""
        return await self._db.read(_authoriser, room_id, user_id)

    def check(self, view: StateView) -> None:
        """Refuse a join to a restricted room that nothing allows.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`.
        """
        rules = view.get(*_RULES)
        if rules is not None and is_restricted(rules.content, rules.version):
            raise errors.forbidden("You are in none of the rooms whose members may join this one.")


def is_restricted(content: JsonObject, version: RoomVersion) -> bool:
    """Whether join rules admit members of other rooms."""
    rule = content.get("join_rule")
    if rule == "restricted":
        return version.restricted_joins
    return rule == "knock_restricted" and version.knock_restricted


def allowed_rooms(content: JsonObject) -> list[str]:
    """The rooms whose members may join, by the join rules' content."""
    conditions = content.get("allow")
    found: list[str] = []
    for condition in conditions[:MAX_CONDITIONS] if isinstance(conditions, list) else []:
        if isinstance(condition, dict) and condition.get("type") == "m.room_membership":
            room_id = room_id_of(condition.get("room_id"))
            if room_id is not None:
                found.append(room_id)
    return found


def room_id_of(value: object) -> RoomID | None:
    """The room ID in a value that anybody may have written, if it is one."""
    if not isinstance(value, str):
        return None
    try:
        return RoomID.parse(value)
    except InvalidIdentifier:
        return None


def meets_conditions(txn: Transaction, content: JsonObject, user_id: str) -> bool:
    """Whether the user is joined to a room that the join rules name."""
    for room_id in allowed_rooms(content):
        room_nid = rooms.nid(txn, room_id)
        if room_nid is not None:
            row = memberships.get(txn, room_nid, user_id)
            if row is not None and row.membership == "join":
                return True
    return False


def _authoriser(txn: Transaction, room_id: str, user_id: str) -> str | None:
    room = rooms.get(txn, room_id)
    version = ROOM_VERSIONS.get(room.version) if room is not None else None
    if room is None or version is None:
        return None
    rows = state.current(txn, room.room_nid, [_CREATE, _POWER, _RULES])
    if _CREATE not in rows or _RULES not in rows:
        return None
    rules: JsonObject = json.loads(rows[_RULES].json)["content"]
    if not is_restricted(rules, version) or not meets_conditions(txn, rules, user_id):
        return None
    return inviter(txn, room.room_nid, version, rows)


def inviter(
    txn: Transaction, room_nid: int, version: RoomVersion, rows: Mapping[StateKey, EventRow]
) -> str | None:
    """A local user in the room who could invite somebody.

    Parameters: `rows`, the current create event, and the power levels if there are any.
    """
    create = _event(rows[_CREATE], version)
    power = PowerLevels.of(_event(rows[_POWER], version) if _POWER in rows else None, create)
    # Those with a level of their own first: among many members they are who can invite.
    likely = [*room_creators(create), *power.listed_users()][:1000]
    found = memberships.get_many(txn, room_nid, likely)
    for name in likely:
        row = found.get(name)
        joined = row is not None and row.membership == "join" and row.is_local
        if joined and power.user_level(name) >= power.invite:
            return name
    for name in memberships.local_joined(txn, room_nid):
        if power.user_level(name) >= power.invite:
            return name
    return None


def _event(row: EventRow, version: RoomVersion) -> Event:
    return Event.from_json(row.json, version, row.event_id)
