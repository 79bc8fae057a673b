"""Answers about keys that are stored together."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from federation.client.key_writes import KeyWrites
from storage.errors import DatabaseUnavailable


class KeyWritesTest(SynchronousTestCase):
    def test_a_database_that_is_away_is_waited_for_once(self) -> None:
        """By all that came together: each of them would wait for it anew."""
        asked: list[Deferred[Any]] = []

        class Away:
            def write(self, *args: Any) -> Deferred[Any]:
                asked.append(Deferred())
                return asked[-1]

        away: Any = Away()
        learned: list[Any] = []
        writes = KeyWrites(away, lambda: 0, learned.append)
        storing = [Deferred.fromCoroutine(writes.store([])) for _ in range(4)]
        self.assertEqual(len(asked), 1)
        asked[0].errback(DatabaseUnavailable("away"))
        self.failureResultOf(storing[0], DatabaseUnavailable)
        self.assertEqual(len(asked), 2)
        asked[1].errback(DatabaseUnavailable("away"))
        for each in storing[1:]:
            self.failureResultOf(each, DatabaseUnavailable)
        self.assertEqual(len(asked), 2)
        # What comes later is tried.
        last = Deferred.fromCoroutine(writes.store([]))
        self.assertEqual(learned, [])
        asked[2].callback(["row"])
        self.successResultOf(last)
        self.assertEqual(learned, [["row"]])

    def test_keys_are_learned_once(self) -> None:
        """Not by each of those who wait, as there may be many keys; and before they go on."""
        asked: list[Deferred[Any]] = []

        class Slow:
            def write(self, *args: Any) -> Deferred[Any]:
                asked.append(Deferred())
                return asked[-1]

        slow: Any = Slow()
        said: list[Any] = []
        writes = KeyWrites(slow, lambda: 0, said.append)

        async def store(number: int) -> None:
            await writes.store([])
            said.append(number)

        storing = [Deferred.fromCoroutine(store(number)) for number in range(5)]
        asked[0].callback("first")
        asked[1].callback("others")
        self.assertEqual(said, ["first", 0, "others", 1, 2, 3, 4])
        for each in storing:
            self.successResultOf(each)
