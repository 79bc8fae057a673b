"""What a room looks like from outside: for the directory, summaries and hierarchies.

Read from the current state. Any member may have written there what is not what the specification
says it is; such values are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeserver.core.ids import InvalidIdentifier, RoomAlias
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.restricted import allowed_rooms, is_restricted
from storage import overviews
from storage.rooms import RoomRow
from storage.transaction import Transaction

_TYPES = (
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.join_rules",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.encryption",
)


@dataclass(frozen=True, slots=True)
class RoomDescription:
    """See the module; None: not set."""

    room_id: str
    room_version: str | None
    """None: another server described the room and did not say it."""
    num_joined_members: int
    join_rule: str
    guest_can_join: bool
    world_readable: bool
    name: str | None
    topic: str | None
    canonical_alias: str | None
    avatar_url: str | None
    room_type: str | None
    encryption: str | None
    allowed_room_ids: tuple[str, ...]
    """Rooms whose members may join; empty unless the join rules say so."""


def describe(txn: Transaction, rooms: Sequence[RoomRow]) -> dict[int, RoomDescription]:
    """Descriptions of rooms whose state this server holds, by room number."""
    nids = [room.room_nid for room in rooms]
    texts = overviews.current_texts(txn, nids, _TYPES)
    counts = overviews.joined_counts(txn, nids)
    found = {}
    for room in rooms:
        contents = {
            event_type: json.loads(text)["content"]
            for event_type, text in texts[room.room_nid].items()
        }
        found[room.room_nid] = _description(room, contents, counts.get(room.room_nid, 0))
    return found


def _description(room: RoomRow, contents: Mapping[str, JsonObject], joined: int) -> RoomDescription:
    rules = contents.get("m.room.join_rules", {})
    version = ROOM_VERSIONS.get(room.version)
    restricted = version is not None and is_restricted(rules, version)

    def text(event_type: str, key: str) -> str | None:
        return _text(contents.get(event_type, {}).get(key))

    return RoomDescription(
        room_id=room.room_id,
        room_version=room.version,
        num_joined_members=joined,
        join_rule=_text(rules.get("join_rule")) or "invite",
        guest_can_join=text("m.room.guest_access", "guest_access") == "can_join",
        world_readable=text("m.room.history_visibility", "history_visibility") == "world_readable",
        name=text("m.room.name", "name"),
        topic=plain_topic(contents.get("m.room.topic", {})),
        canonical_alias=_alias(text("m.room.canonical_alias", "alias")),
        avatar_url=text("m.room.avatar", "url"),
        room_type=text("m.room.create", "type"),
        encryption=text("m.room.encryption", "algorithm"),
        allowed_room_ids=tuple(allowed_rooms(rules)) if restricted else (),
    )


def plain_topic(content: JsonObject) -> str | None:
    """The plain text of a topic: its rich form's, else `topic` (event `m.room.topic`)."""
    rich = content.get("m.topic")
    texts = rich.get("m.text") if isinstance(rich, dict) else None
    if isinstance(texts, list):
        for entry in texts:
            if isinstance(entry, dict) and entry.get("mimetype", "text/plain") == "text/plain":
                return _text(entry.get("body"))
    return _text(content.get("topic"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _alias(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return RoomAlias.parse(text)
    except InvalidIdentifier:
        return None
