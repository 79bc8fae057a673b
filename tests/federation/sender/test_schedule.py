"""Whose turn it is to be sent to, without a database."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from federation.sender.destination import Destination
from federation.sender.schedule import MAX_HEALTHY, MAX_RECOVERING, Schedule


class StopTest(SynchronousTestCase):
    def start(self, count: int, failing_since: int | None) -> None:
        self.sending: list[Deferred[None]] = []
        self.clock = Clock()

        async def send_next(destination: Destination) -> bool:
            never: Deferred[None] = Deferred()
            self.sending.append(never)
            await never
            return False

        changed: Any = lambda destination: None  # noqa: E731
        self.schedule = Schedule(self.clock, send_next, changed)
        for number in range(count):
            destination = Destination(f"s{number}.example")
            destination.failing_since = failing_since
            self.schedule.wake(destination)
        while self.schedule.under_way < count:
            self.clock.advance(0.01)

    def assert_stops(self) -> None:
        stopping = Deferred.fromCoroutine(self.schedule.stop())
        self.successResultOf(stopping)
        self.assertEqual(self.schedule.under_way, 0)

    def test_thousands_wait_for_their_turn(self) -> None:
        for count, failing_since, most in ((5000, 0, MAX_RECOVERING), (3000, None, MAX_HEALTHY)):
            self.start(count, failing_since)
            self.assertEqual(len(self.sending), most)
            self.assert_stops()
            self.assertEqual(len(self.sending), most)
