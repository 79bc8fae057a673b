"""When which connection is to be looked at for its timeouts.

Connections are filed by the second. A connection that moves its deadline away stays where it is
filed, and is filed anew only when it is looked at there: so a request costs a comparison, and a
connection that waits costs nothing until its second comes.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Protocol

_NEVER = math.inf


class Timed(Protocol):
    """Something with a deadline, in seconds."""

    filed: float
    """When it is looked at; the owner of this is `Deadlines`."""

    @property
    def deadline(self) -> float: ...

    def check_time(self, now: float) -> None: ...


class Deadlines:
    """Calls `check_time` of those whose deadlines have passed. Whoever gets a deadline before
    `filed` has to be filed again."""

    __slots__ = ("_due", "_seconds", "looks")

    def __init__(self) -> None:
        self._due: dict[float, set[Timed]] = {}
        self._seconds: list[float] = []
        """A heap of the keys of `_due`."""
        self.looks = 0
        """How often anything was looked at."""

    def file(self, timed: Timed, deadline: float) -> None:
        """Look at it when the deadline has passed, and no more where it was filed."""
        self.remove(timed)
        if deadline == _NEVER:
            return
        second = float(math.ceil(deadline))
        due = self._due.get(second)
        if due is None:
            due = self._due[second] = set()
            heappush(self._seconds, second)
        due.add(timed)
        timed.filed = second

    def remove(self, timed: Timed) -> None:
        """Look at it no more."""
        due = self._due.get(timed.filed)
        if due is not None:
            due.discard(timed)
        timed.filed = _NEVER

    def check(self, now: float) -> None:
        """Look at those whose second has come."""
        seconds = self._seconds
        while seconds and seconds[0] <= now:
            for timed in self._due.pop(heappop(seconds)):
                self.looks += 1
                timed.filed = _NEVER
                timed.check_time(now)
                deadline = timed.deadline
                # Not in a second that has come: it would be looked at for ever.
                if deadline < timed.filed:
                    self.file(timed, max(deadline, math.floor(now) + 1.0))
