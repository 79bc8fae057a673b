"""Spaces that this server is in: their rooms, and who may know of them.

Client-server API, "Spaces"; server-server API, "Spaces".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.core.types import JsonObject
from homeserver.rooms.description import RoomDescription, describe
from homeserver.rooms.remote_rooms import SPACE_CHILD, child_event
from homeserver.rooms.server_access import acl_allows
from homeserver.rooms.summary import OPEN_RULES
from storage import memberships, room_servers, rooms, state
from storage.rooms import RoomRow
from storage.transaction import Transaction

SPACE = "m.space"
_MAX_ORDER = 50


@dataclass(frozen=True, slots=True)
class LocalSpace:
    """A room that this server has the state of. `is_fresh`: as long as it is in the room itself.

    `children_state` is in the order in which clients show the rooms; empty unless it is a space.
    """

    row: RoomRow
    room: RoomDescription
    children_state: Sequence[JsonObject]
    is_fresh: bool


def local_space(txn: Transaction, room_id: str, *, suggested_only: bool) -> LocalSpace | None:
    """A room of this server; None if it is not known here."""
    row = rooms.get(txn, room_id)
    if row is None or row.state_root is None:
        return None
    room = describe(txn, [row])[row.room_nid]
    children = _children(txn, row.room_nid) if room.room_type == SPACE else []
    is_fresh = bool(memberships.local_joined(txn, row.room_nid))
    return LocalSpace(row, room, shown_children(children, suggested_only), is_fresh)


def _children(txn: Transaction, room_nid: int) -> list[JsonObject]:
    found = state.current_of_type(txn, room_nid, SPACE_CHILD)
    events = (child_event(json.loads(row.json)) for row in found.values())
    return [event for event in events if event is not None]


def shown_children(events: Sequence[JsonObject], suggested_only: bool) -> list[JsonObject]:
    """`m.space.child` events in their order: by `order`, then time, then room ID."""
    chosen = [e for e in events if not suggested_only or e["content"].get("suggested") is True]
    return sorted(chosen, key=_place)


def _place(event: JsonObject) -> tuple[bool, str, int, str]:
    order = event["content"].get("order")
    is_valid = (
        isinstance(order, str)
        and len(order) <= _MAX_ORDER
        and all(" " <= character <= "~" for character in order)
    )
    return not is_valid, order if is_valid else "", event["origin_server_ts"], event["state_key"]


def open_to_server(txn: Transaction, found: LocalSpace, server: str) -> bool:
    """Whether another server may know of a room: its users are in it or invited, or may join,
    knock or peek; and the room's ACL does not deny it."""
    room_nid = found.row.room_nid
    if not acl_allows(txn, room_nid, server):
        return False
    room = found.room
    if room.join_rule in OPEN_RULES or room.world_readable:
        return True
    if room_servers.is_in(txn, room_nid, server):
        return True
    users = memberships.of_server(txn, room_nid, server)
    known = memberships.get_many(txn, room_nid, users).values()
    if any(row.membership in ("join", "invite", "knock") for row in known):
        return True
    nids = (rooms.nid(txn, allowed) for allowed in room.allowed_room_ids)
    return any(nid is not None and room_servers.is_in(txn, nid, server) for nid in nids)
