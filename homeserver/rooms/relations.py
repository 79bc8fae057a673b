"""Which event another one is about (client-server API, "Forming relationships between events")."""

from __future__ import annotations

from typing import NamedTuple

from homeserver.core.event import Event
from homeserver.core.types import JsonObject


class Relation(NamedTuple):
    """What `m.relates_to` says, with the thread that follows from it."""

    relates_to: str
    rel_type: str | None
    thread_root: str | None


def relation_of(event: Event) -> Relation | None:
    """The relation of an event; None if it has none that can be used.

    `thread_root` is set here for thread relations alone: for the others it is the thread of the
    event that they relate to.
    """
    return None if event.is_state else relation_in(event.content)


def relation_in(content: JsonObject) -> Relation | None:
    """The relation in the content of a message event. See `relation_of`."""
    relates = content.get("m.relates_to")
    if not isinstance(relates, dict):
        return None
    parent, rel_type = relates.get("event_id"), relates.get("rel_type")
    if not isinstance(parent, str) or not isinstance(rel_type, str):
        return None
    if not _usable(parent) or not _usable(rel_type):
        return None
    return Relation(parent, rel_type, parent if rel_type == "m.thread" else None)


def _usable(value: str) -> bool:
    return len(value.encode()) <= 255 and "\x00" not in value
