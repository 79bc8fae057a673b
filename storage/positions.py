"""Which positions of the clock this process has taken in, on plain numbers.

`applied` is the position up to which every commit, of any process, is known here and its cache
invalidations are applied. Commits of this process move it on by themselves while they are next in
line. Behind another process's commit they wait, until a look at the database covers the gap.
"""

from __future__ import annotations


class Positions:
    """Used on the reactor thread only."""

    __slots__ = ("_own", "applied", "foreign", "known")

    def __init__(self, start: int) -> None:
        self.applied = start
        self.known = start
        # The position at which commits of other processes were last noticed.
        self.foreign = start
        self._own: dict[int, int] = {}

    @property
    def behind(self) -> bool:
        """Whether commits are known that are not applied."""
        return self.known > self.applied

    def own_commit(self, first: int, last: int) -> None:
        """This process committed positions `first` to `last`."""
        self.known = max(self.known, last)
        if last > self.applied:
            self._own[first] = last
            self._move_on()

    def heard_of(self, pos: int) -> None:
        """Another process says that it committed `pos`."""
        self.known = max(self.known, pos)

    def looked(self, pos: int, known: int | None = None) -> None:
        """The database was at `pos`, and what happened up to there has been applied.

        `known` is the attribute when the look began: if nothing was heard since, there is no more
        to know, whatever somebody said.
        """
        if pos > self.applied:
            covered = [first for first, last in self._own.items() if last <= pos]
            own = sum(self._own.pop(first) - first + 1 for first in covered)
            if pos - self.applied > own:
                self.foreign = pos
            self.applied = pos
        self._move_on()
        if known == self.known:
            self.known = max(self._own.values(), default=0)
        self.known = max(self.known, self.applied)

    def _move_on(self) -> None:
        while (last := self._own.pop(self.applied + 1, None)) is not None:
            self.applied = last
