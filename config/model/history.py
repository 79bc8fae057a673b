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
