"""Deadlines filed by the second."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.web.deadlines import Deadlines


class Thing:
    """Notes when it was found to be over."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.filed = math.inf
        self.deadline = math.inf
        self.over: list[float] = []
        self._deadlines = deadlines

    def expect_by(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.filed:
            self._deadlines.file(self, deadline)

    def check_time(self, now: float) -> None:
        if now >= self.deadline:
            self.over.append(now)
            self.deadline = math.inf


class DeadlinesTests(TestCase):
    """See `homeserver.web.deadlines`."""

    def setUp(self) -> None:
        self.deadlines = Deadlines()

    def _check(self, *seconds: float) -> None:
        for now in seconds:
            self.deadlines.check(now)

    def test_passed(self) -> None:
        thing = Thing(self.deadlines)
        thing.expect_by(2.5)
        self._check(0, 1, 2)
        self.assertEqual((thing.over, self.deadlines.looks), ([], 0))
        self._check(3, 4)
        self.assertEqual((thing.over, self.deadlines.looks), ([3], 1))

    def test_moved_away(self) -> None:
        """It is looked at where it was filed, and then not before the new deadline."""
        thing = Thing(self.deadlines)
        thing.expect_by(2)
        thing.expect_by(100)
        self._check(*range(100))
        self.assertEqual((thing.over, self.deadlines.looks), ([], 1))
        self._check(100)
        self.assertEqual(thing.over, [100])

    def test_never(self) -> None:
        thing = Thing(self.deadlines)
        thing.expect_by(2)
        thing.expect_by(math.inf)
        self._check(*range(1000))
        self.assertEqual((thing.over, self.deadlines.looks), ([], 1))

    def test_moved_nearer(self) -> None:
        thing = Thing(self.deadlines)
        thing.expect_by(100)
        thing.expect_by(3)
        self._check(3)
        self.assertEqual(thing.over, [3])
        self._check(100)
        self.assertEqual(self.deadlines.looks, 1)

    def test_removed(self) -> None:
        things = [Thing(self.deadlines) for _ in range(3)]
        for thing in things:
            thing.expect_by(3)
        self.deadlines.remove(things[1])
        self._check(3)
        self.assertEqual([thing.over for thing in things], [[3], [], [3]])

    def test_filed_by_another(self) -> None:
        """One that is looked at may give another a deadline, and itself a new one."""
        first, second = Thing(self.deadlines), Thing(self.deadlines)

        def check(now: float) -> None:
            first.over.append(now)
            second.expect_by(now)
            first.deadline = now + 1

        first.check_time = check  # type: ignore[method-assign]
        first.expect_by(1)
        self._check(1, 2, 3)
        self.assertEqual(first.over, [1, 2, 3])
        self.assertEqual(second.over, [1, 2, 3])

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=30))
    def test_like_looking_at_all(self, steps: list[tuple[int, int]]) -> None:
        """Each is found in the first second after its deadline, as by looking at all."""
        self.deadlines = Deadlines()
        things = [Thing(self.deadlines) for _ in range(3)]
        due = [math.inf] * 3
        found: list[list[float]] = [[], [], []]
        for now, (number, wait) in enumerate(steps, 1):
            due[number] = now + wait / 4
            things[number].expect_by(due[number])
            for each in range(3):
                if due[each] <= now:
                    found[each].append(now)
                    due[each] = math.inf
            self._check(now)
        self.assertEqual([thing.over for thing in things], found)
