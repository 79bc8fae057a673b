"""Watching for state resets: changes of a room's state that nobody asked for.

State resolution may take back a change, or bring back what was changed, though no event that just
arrived is about it. Mostly that is a fork that heals; if not, somebody will want to know why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from homeserver.rooms.judged import Reset

MAX_LOGGED = 20
"""Changes of one resolution that the log names."""

_log = structlog.get_logger(__name__)


class Counting(Protocol):
    """A counter of the metrics."""

    def inc(self, amount: float = ...) -> None: ...


class ResetWatch:
    """Logs and counts state resets."""

    def __init__(self, counter: Counting) -> None:
        self._counter = counter

    def noticed(self, room_id: str, resets: Sequence[Reset]) -> None:
        """State of a room changed beside the events that arrived."""
        self._counter.inc(len(resets))
        _log.warning(
            "state changed by resolution",
            room_id=room_id,
            count=len(resets),
            changes=[
                {
                    "type": reset.key[0],
                    "state_key": reset.key[1],
                    "old": reset.old,
                    "new": reset.new,
                }
                for reset in resets[:MAX_LOGGED]
            ],
            explain=f"hearth room explain {room_id}",
        )
