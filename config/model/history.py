"""How long what is said in rooms is kept."""

from __future__ import annotations

from dataclasses import dataclass

from config.types import Duration, option

DAY = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Redactions:
    """Redacted events."""

    keep_content: Duration = option(
        Duration(7 * DAY),
        "How long moderators of the room, and administrators, can look at what a redacted event "
        "said; 0s: not at all.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRetention:
    """Messages that are not kept for ever. Rooms can say for how long (m.room.retention)."""

    enabled: bool = option(
        False,
        "Whether messages that are older than their room keeps them are hidden, and purged within "
        "an hour. State events, such as names of rooms and members, stay.",
    )
    max_lifetime: Duration | None = option(
        None, "For how long they are kept in rooms that do not say it; none: for ever."
    )
    min_lifetime: Duration | None = option(
        None, "What clients are told of how long they are kept at least in those rooms."
    )
    shortest: Duration | None = option(
        None,
        "The shortest time that a room can ask for, which is also that of rooms that have an "
        "m.room.retention event without max_lifetime.",
    )
    longest: Duration | None = option(None, "The longest time that a room can ask for.")
