"""Whether events that other servers send are to be looked for before they are added.

Nearly all are new, and the database says so if one is not: an event ID is there once. So they are
not looked for, but in rooms whose events were known already a short while ago, as where a server
repeats itself: there it would be done twice.
"""

from __future__ import annotations

LOOKS = 20
"""So many batches of a room are looked for after one that was not all new."""
MAX_ROOMS = 1000


class Newness:
    """Used on the reactor thread."""

    def __init__(self) -> None:
        self._looks: dict[str, int] = {}

    def presumed(self, room_id: str) -> bool:
        """Whether the next batch of a room may be presumed to be new."""
        looks = self._looks.pop(room_id, 0)
        if looks > 1:
            self._looks[room_id] = looks - 1
        return looks == 0

    def disproved(self, room_id: str) -> None:
        """One was not, or it could not be told."""
        if len(self._looks) >= MAX_ROOMS:
            self._looks.clear()
        self._looks[room_id] = LOOKS
