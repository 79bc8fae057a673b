"""What `/sync` asks of the database: a bound on statements, which noise cannot break.

On PostgreSQL every statement is a round trip and is planned anew, so that their number is what an
answer costs. The bounds hold for both databases.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet import reactor as installed_reactor

from storage.database import Timing, sleep
from tests.homeserver.sync.scene import SyncTestCase, bodies, joined

reactor: Any = installed_reactor
# The transaction of the answer itself.
ANSWER = "SyncEngine.read"


class StatementsTest(SyncTestCase):
    async def statements(self, doing: Awaitable[object]) -> dict[str, int]:
        """Statements of each transaction while something is done, by the transaction's name."""
        seen: list[Timing] = []
        database = self.server.homeserver.db
        watching = self.patch(database, "_observe", seen.append)
        await doing
        # The report comes after the answer.
        while not any(timing.name == ANSWER for timing in seen):
            await sleep(reactor, 0)
        watching.restore()
        counts: dict[str, int] = {}
        for timing in seen:
            counts[timing.name] = counts.get(timing.name, 0) + timing.statements
        return counts

    async def test_nothing_new(self) -> None:
        """Whatever the number of rooms. Shows SYN-2."""
        for _ in range(3):
            await self.shared_room()
        since = await self.token(self.bob)
        since = await self.token(self.bob, since=since)
        counts = await self.statements(self.bob.sync(since))
        # The second is for the rooms to look for typing in, if anybody's presence changed.
        self.assertLessEqual(counts[ANSWER], 2)

    async def test_news_for_others(self) -> None:
        """The clock moved, but for a room that the user is not in."""
        await self.shared_room()
        elsewhere = await self.alice.create_room()
        since = await self.token(self.bob)
        await self.alice.send(elsewhere)
        counts = await self.statements(self.bob.sync(since))
        self.assertLessEqual(counts[ANSWER], 2)

    async def test_one_message(self) -> None:
        """In one of several rooms."""
        rooms = [await self.shared_room() for _ in range(3)]
        since = await self.token(self.bob)
        await self.alice.send(rooms[1], "hello")
        answers = []

        async def sync() -> None:
            answers.append(await self.bob.sync(since))

        counts = await self.statements(sync())
        self.assertEqual(list(answers[0]["rooms"]["join"]), [rooms[1]])
        self.assertEqual(bodies(joined(answers[0], rooms[1])), ["hello"])
        self.assertLessEqual(counts[ANSWER], 10)
