"""Few at a time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.core.errors import MatrixError
from homeserver.web.turns import Turns


class TurnsTest(TestCase):
    def setUp(self) -> None:
        self.turns = Turns(each=2, total=3, waiting=2)
        self.running: list[tuple[str, Deferred[None]]] = []

    def begin(self, asker: str) -> Deferred[Any]:
        async def work() -> None:
            async with self.turns.turn(asker):
                done: Deferred[None] = Deferred()
                entry = (asker, done)
                self.running.append(entry)
                try:
                    await done
                finally:
                    self.running.remove(entry)

        return Deferred.fromCoroutine(work())

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.running]

    def end(self, index: int = 0) -> None:
        self.running[index][1].callback(None)

    def test_of_each_and_in_all(self) -> None:
        for _ in range(4):
            self.begin("a")
        self.assertEqual(self.names, ["a", "a"])
        for name in "bc":
            self.begin(name)
        self.assertEqual(self.names, ["a", "a", "b"])
        self.end()
        # Who waited for a place in all comes before what waits behind others of its own.
        self.assertEqual(self.names, ["a", "b", "c"])
        while self.running:
            self.end()
        self.assertEqual(len(self.turns), 0)

    def test_too_many_of_one_are_refused(self) -> None:
        for _ in range(4):
            self.begin("a")
        error: Any = self.failureResultOf(self.begin("a"), MatrixError).value
        self.assertEqual((error.status, error.errcode), (429, "M_LIMIT_EXCEEDED"))
        self.begin("b")
        self.assertEqual(self.names, ["a", "a", "b"])
        self.end()
        self.begin("a")
        while self.running:
            self.end()
        self.assertEqual(len(self.turns), 0)

    def test_one_that_fails_or_is_cancelled_makes_room(self) -> None:
        first, _, third = (self.begin("a") for _ in range(3))
        third.cancel()
        self.failureResultOf(third)
        self.running[0][1].errback(ValueError())
        self.failureResultOf(first, ValueError)
        self.begin("a")
        self.assertEqual(self.names, ["a", "a"])
        while self.running:
            self.end()
        self.assertEqual(len(self.turns), 0)
