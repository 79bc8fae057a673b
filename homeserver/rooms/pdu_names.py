"""What PDUs say of themselves before anybody has checked them: any JSON value may be one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from homeserver.core.ids import MAX_ID_BYTES, EventID, InvalidIdentifier, RoomID, domain_of
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import event_id_for
from homeserver.core.types import JsonObject


def room_of(pdu: Any) -> str | None:
    """The room that a PDU names."""
    room_id = pdu.get("room_id") if isinstance(pdu, dict) else None
    # Nothing as long as a whole transaction is remembered.
    if not isinstance(room_id, str) or len(room_id) > MAX_ID_BYTES:
        return None
    return _valid_room_id(room_id)


@lru_cache(maxsize=256)
def _valid_room_id(text: str) -> str | None:
    # Events come many of a room at a time.
    try:
        return RoomID.parse(text)
    except InvalidIdentifier:
        return None


def is_of(origin: str, pdu: JsonObject) -> bool:
    """Whether its sender is a user of a server."""
    sender = pdu.get("sender")
    return isinstance(sender, str) and domain_of(sender) == origin


def ends_membership(pdu: Any, server_name: str) -> bool:
    """Whether a PDU looks like the end of an invite or a knock of a user of this server."""
    if not isinstance(pdu, dict) or pdu.get("type") != "m.room.member":
        return False
    user_id, content = pdu.get("state_key"), pdu.get("content")
    return (
        isinstance(user_id, str)
        and domain_of(user_id) == server_name
        and isinstance(content, dict)
        and content.get("membership") in ("leave", "ban")
    )


def named_in(pdus: Iterable[Any]) -> list[str]:
    """The event IDs of PDUs of no room, of those of which they can be told."""
    return [name for pdu in pdus if (name := id_of(pdu, None)) is not None]


def id_of(pdu: Any, version: RoomVersion | None) -> str | None:
    """The event ID of a PDU that is refused unread, if that can be told.

    Parameters: `version`, that of its room, if it is known.
    """
    if version is not None:
        return computed_id(pdu, version)
    if not isinstance(pdu, dict):
        return None
    # Which version the room has is not known here: the ID can be told in the oldest ones only,
    # which carry it, and where the room's ID shows that it is of version 12.
    if "event_id" in pdu:
        return computed_id(pdu, ROOM_VERSIONS["1"])
    room_id = room_of(pdu)
    is_create = pdu.get("type") == "m.room.create" and "room_id" not in pdu
    if is_create or (room_id is not None and RoomID(room_id).legacy_domain is None):
        return computed_id(pdu, ROOM_VERSIONS["12"])
    return None


def computed_id(pdu: Any, version: RoomVersion) -> str | None:
    """The event ID of what is perhaps an event; None if it cannot have one."""
    try:
        return EventID.parse(event_id_for(pdu, version))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
