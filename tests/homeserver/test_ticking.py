"""Loops that run together."""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import TestCase

from homeserver.ticking import start_ticking


class TickingTest(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.3)
        self.ran: list[tuple[str, float]] = []

    def start(self, name: str, interval: float, now: bool = False) -> LoopingCall:
        loop = LoopingCall(lambda: self.ran.append((name, round(self.clock.seconds(), 3))))
        loop.clock = self.clock
        start_ticking(loop, interval, now)
        self.addCleanup(loop.stop)
        return loop

    def test_after_their_first_wait_all_run_together(self) -> None:
        self.start("first", 1.0)
        self.clock.advance(0.25)
        self.start("second", 1.0)
        self.clock.advance(0.125)
        self.start("slow", 3.0, now=True)
        self.assertEqual(self.ran, [("slow", 100.675)])
        self.ran.clear()
        self.clock.pump([0.125] * 8)
        self.assertEqual(self.ran, [("first", 101.3), ("second", 101.55)])
        self.ran.clear()
        self.clock.pump([0.125] * 24)  # the slow one waits for the first time
        self.ran.clear()
        self.clock.pump([0.125] * 32)
        at = [when for _, when in self.ran]
        self.assertEqual({round(when % 1, 3) for when in at}, {0.3})
        for name, times in (("first", 4), ("second", 4), ("slow", 1)):
            self.assertEqual([each for each, _ in self.ran].count(name), times, name)

    def test_none_runs_more_often_than_it_should(self) -> None:
        self.start("first", 1.0)
        self.clock.advance(0.9)
        self.start("second", 2.0)
        self.clock.pump([0.1] * 400)
        for name, seconds in (("first", 1.0), ("second", 2.0)):
            at = [when for each, when in self.ran if each == name]
            apart = {round(later - earlier, 3) for earlier, later in pairwise(at[1:])}
            self.assertEqual(apart, {seconds}, name)
