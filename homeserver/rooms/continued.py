"""What is known of a room in which other servers go on talking.

Nearly all that comes are messages right after the last one, of people who spoke a moment ago, and
who name the same auth events. What the rules said of theirs they say again while the state is the
same, so that neither the head nor the auth events have to be read. That nothing has changed is
proved under the room's lock, by its versions: each change of its head counts up `head_version`,
and each other change of its events (a redaction, another verdict, a purge) `content_version`.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import getsizeof
from typing import NamedTuple

from homeserver.core.event import Event
from storage.events import ACCEPTED
from storage.rooms import RoomRow

MAX_KINDS = 32
"""So many kinds of messages of a room are remembered, the last ones."""

Alike = tuple[object, ...]
"""What the rules ask of a message; the states before it and now are the last two."""
Verdict = tuple[int, str | None]
"""A status and, if it is not accepted, why."""


_JUDGED_BY_CONTENT = frozenset(
    {
        "m.room.aliases",
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.redaction",
        "m.room.third_party_invite",
    }
)
"""Types of which the rules look at more than the sender and the state."""


def is_judged_by_sender(event: Event) -> bool:
    """Whether an event is a message that is judged by its sender and the states alone."""
    return event.state_key is None and event.type not in _JUDGED_BY_CONTENT


def alike(event: Event, before: bytes, current: bytes | None) -> Alike:
    """What the rules ask of a message that is judged by its sender and the states alone."""
    return (event.type, event.sender, event.room_id, event.auth_event_ids, before, current)


class Continued(NamedTuple):
    """A room whose newest events were all accepted and are in its state, that of `root`."""

    room_nid: int
    head_version: int
    content_version: int
    root: bytes
    allowed: tuple[Alike, ...]
    """Messages that were accepted in this state."""

    def is_as_before(self, row: RoomRow, content_version: int) -> bool:
        """Whether nothing has changed in the room, which is locked."""
        now = (row.room_nid, row.head_version, content_version, row.state_root)
        return now == (self.room_nid, self.head_version, self.content_version, self.root)

    def verdicts(self) -> dict[Alike, Verdict]:
        """What the rules say of messages."""
        return dict.fromkeys(self.allowed, (ACCEPTED, None))


def kinds(verdicts: Mapping[Alike, Verdict], root: bytes) -> tuple[Alike, ...]:
    """The messages that were accepted before, and now, in the state of a root."""
    found = [
        each
        for each, verdict in verdicts.items()
        if verdict == (ACCEPTED, None) and each[-2:] == (root, root)
    ]
    return tuple(found[-MAX_KINDS:])


def size(room_id: str, known: Continued) -> int:
    """Bytes that it takes; roots, and the room's ID in each kind, are there once."""
    texts: list[object] = [room_id]
    for kind in known.allowed:
        texts += kind[:2]
        names = kind[3]
        texts += names if isinstance(names, tuple) else ()
    return sum(map(getsizeof, texts)) + 160 * len(known.allowed) + 500
