"""Asking many servers at the same time."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.encryption import servers


class AskAllTest(TestCase):
    def test_very_many_servers_that_are_asked_too_late(self) -> None:
        """The request that asks is answered, and each of the servers is named as failed."""
        clock = Clock()
        names = [f"server{number}.example" for number in range(3_000)]
        asked: list[Deferred[None]] = []

        async def ask(server_name: str, question: int, seconds: float) -> None:
            answer: Deferred[None] = Deferred()
            asked.append(answer)
            await answer

        asking = Deferred.fromCoroutine(servers.ask_all(dict.fromkeys(names, 1), ask, 1_000, clock))
        self.assertNoResult(asking)
        first = list(asked)
        clock.advance(2)
        for answer in first:
            answer.callback(None)
        answers, failures = self.successResultOf(asking)
        self.assertEqual(len(answers), len(first))
        self.assertEqual(len(failures), len(names) - len(first))
        self.assertEqual(len(asked), len(first))
