"""What people call a room (client-server API, "Calculating the display name for a room")."""

from __future__ import annotations

import json

from homeserver.core.ids import InvalidIdentifier, RoomAlias
from homeserver.sync.summary import heroes
from storage import memberships, overviews
from storage.memberships import MembershipRow
from storage.transaction import Transaction

_MAX_NAMED = 3


def room_name(txn: Transaction, room_nid: int, user_id: str) -> str | None:
    """The name of a room for one of its members: its own, its alias, or who else is there."""
    texts = overviews.current_texts(txn, [room_nid], ("m.room.name", "m.room.canonical_alias"))
    name = _content(texts[room_nid].get("m.room.name"), "name")
    if name:
        return name
    alias = _alias(_content(texts[room_nid].get("m.room.canonical_alias"), "alias"))
    if alias:
        return alias
    others = [member_name(txn, room_nid, each) for each in heroes(txn, room_nid, user_id)]
    if not others:
        return None
    count = memberships.counts(txn, room_nid)
    more = count.get("join", 0) + count.get("invite", 0) - 1 - min(len(others), _MAX_NAMED)
    return _listed(others[:_MAX_NAMED], more)


def room_alias(txn: Transaction, room_nid: int) -> str | None:
    """The canonical alias of a room."""
    texts = overviews.current_texts(txn, [room_nid], ("m.room.canonical_alias",))
    return _alias(_content(texts[room_nid].get("m.room.canonical_alias"), "alias"))


def invited_room_name(member: MembershipRow) -> str | None:
    """What an invite calls the room."""
    found: dict[str, str | None] = {}
    for entry in json.loads(member.stripped_state or "[]"):
        kind, content = entry.get("type"), entry.get("content")
        if kind in ("m.room.name", "m.room.canonical_alias") and isinstance(content, dict):
            value = content.get("name" if kind == "m.room.name" else "alias")
            found[kind] = value if isinstance(value, str) and value else None
    return found.get("m.room.name") or _alias(found.get("m.room.canonical_alias"))


def member_name(txn: Transaction, room_nid: int, user_id: str) -> str:
    """What a user is called in a room."""
    member = memberships.get(txn, room_nid, user_id)
    return (member.displayname if member is not None else None) or user_id


def _listed(names: list[str], more: int) -> str:
    if more > 0:
        return f"{', '.join(names)} and {more} more"
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _content(text: str | None, key: str) -> str | None:
    content = json.loads(text).get("content") if text is not None else None
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, str) and value else None


def _alias(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return RoomAlias.parse(text)
    except InvalidIdentifier:
        return None
