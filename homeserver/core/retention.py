"""How long the messages of a room are kept: `m.room.retention` (MSC1763)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from homeserver.core.types import JsonObject, StateKey

TYPES: tuple[StateKey, ...] = (("m.room.retention", ""), ("org.matrix.msc1763.retention", ""))
"""State events that say it; the first that there is counts."""
_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What the server does, in milliseconds.

    Parameters: `max_lifetime` and `min_lifetime` of rooms that say nothing; `shortest` and
    `longest`, between which a room's `max_lifetime` is brought. None: not limited.
    """

    max_lifetime: int | None = None
    min_lifetime: int | None = None
    shortest: int | None = None
    longest: int | None = None

    def lifetime(self, content: JsonObject | None) -> int | None:
        """For how long messages are kept in a room whose state event has this content (None:
        there is no such event); None: for ever."""
        if content is None:
            return self.max_lifetime
        wanted = _duration(content.get("max_lifetime"))
        if wanted is None:
            return self.shortest
        if self.shortest is not None:
            wanted = max(wanted, self.shortest)
        return wanted if self.longest is None else min(wanted, self.longest)

    def to_json(self) -> JsonObject:
        """As clients are told."""
        default = _present(max_lifetime=self.max_lifetime, min_lifetime=self.min_lifetime)
        limit = _present(min=self.shortest, max=self.longest)
        return {
            "policies": {"*": default} if default else {},
            "limits": {"max_lifetime": limit} if limit else {},
        }


def _present(**values: int | None) -> JsonObject:
    return {name: value for name, value in values.items() if value is not None}


def _duration(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX:
        return value
    return None
