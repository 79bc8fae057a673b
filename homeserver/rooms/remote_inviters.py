"""Servers that can let a user into a restricted room (client-server API, "Restricted rooms")."""

from __future__ import annotations

import json

from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.power_levels import PowerLevels, room_creators
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.restricted import is_restricted, meets_conditions
from storage import memberships, room_servers, rooms, state
from storage.transaction import Transaction

_CREATE = ("m.room.create", "")
_POWER = ("m.room.power_levels", "")
_RULES = ("m.room.join_rules", "")
MAX_USERS = 1000
"""Users with a power level of their own that are looked at."""


def remote_inviters(txn: Transaction, room_id: str, user_id: str) -> list[str]:
    """Other servers with a user in the room who may invite; none where that is of no use, since
    the user does not meet the room's conditions or needs nobody's help."""
    room = rooms.get(txn, room_id)
    version = ROOM_VERSIONS.get(room.version) if room is not None else None
    if room is None or version is None:
        return []
    own = memberships.get(txn, room.room_nid, user_id)
    if own is not None and own.membership in ("join", "invite", "ban"):
        return []
    rows = state.current(txn, room.room_nid, [_CREATE, _POWER, _RULES])
    if _CREATE not in rows or _RULES not in rows:
        return []
    rules: JsonObject = json.loads(rows[_RULES].json)["content"]
    if not is_restricted(rules, version) or not meets_conditions(txn, rules, user_id):
        return []
    found = {key: Event.from_json(row.json, version, row.event_id) for key, row in rows.items()}
    power = PowerLevels.of(found.get(_POWER), found[_CREATE])
    named = [*room_creators(found[_CREATE]), *power.listed_users()][:MAX_USERS]
    here = memberships.get_many(txn, room.room_nid, named)
    able = [
        domain_of(name)
        for name in named
        if name in here
        and here[name].membership == "join"
        and power.user_level(name) >= power.invite
    ]
    if power.user_level("") >= power.invite:
        able += room_servers.of_room(txn, room.room_nid)
    return able
