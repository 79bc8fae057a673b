"""What is known of a room in which other servers go on talking.

Nearly all that comes are messages right after the last one, of people who spoke a moment ago, and
who name the same auth events. What the rules said of theirs they say again while the state is the
same, so that neither the head nor the auth events have to be read. That nothing has changed is
proved under the room's lock, by its versions: each change of its head counts up `head_version`,
and each other change of its events (a redaction, another verdict, a purge) `content_version`.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def alike(event: Event, before: bytes, current: bytes | None) -> Alike:
    """What the rules ask of a message that is judged by its sender and the states alone."""
    return (event.type, event.sender, event.room_id, event.auth_event_ids, before, current)


class Continued(NamedTuple):
    """A room whose newest events, `row.extremities`, were all accepted and are in its state."""

    row: RoomRow
    content_version: int
    allowed: tuple[Alike, ...]
    """Messages that were accepted in this state."""

    def is_as_before(self, row: RoomRow, content_version: int) -> bool:
        """Whether nothing has changed in the room, which is locked."""
        known = self.row
        return (known.room_nid, known.head_version, known.state_root, self.content_version) == (
            row.room_nid,
            row.head_version,
            row.state_root,
            content_version,
        )

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
    """Bytes that it takes; roots and the parts of IDs that are shared are not counted again."""
    texts = sum(
        120 + sum(map(len, each[3])) if isinstance(each[3], tuple) else 120
        for each in known.allowed
    )
    return 1000 + len(room_id) + 2 * texts
