"""What `/sync` asks of the database: a bound on statements, which noise cannot break.

On PostgreSQL every statement is a round trip and is planned anew, so that their number is what an
answer costs. The bounds hold for both databases.
"""

from __future__ import annotations

from typing import Any

from homeserver.sync.engine import Durable, SyncEngine
from storage.transaction import Transaction
from tests.homeserver.sync.scene import SyncTestCase, bodies, joined


class StatementsTest(SyncTestCase):
    async def prepare(self) -> None:
        await super().prepare()
        self.statements: list[int] = []
        engine = self.server.homeserver.services[SyncEngine]
        read = engine.read

        def counted(txn: Transaction, *args: Any, **options: Any) -> Durable:
            found = read(txn, *args, **options)
            self.statements.append(txn.statements)
            return found

        self.patch(engine, "read", counted)

    async def sync(self, since: str) -> tuple[Any, int]:
        """Bob's answer, and how many statements it took."""
        self.statements.clear()
        answer = await self.bob.sync(since)
        self.assertEqual(len(self.statements), 1)
        return answer, self.statements[0]

    async def test_nothing_new(self) -> None:
        """Whatever the number of rooms."""
        for _ in range(3):
            await self.shared_room()
        since = await self.token(self.bob)
        answer, statements = await self.sync(since)
        self.assertNotIn("rooms", answer)
        # The second is for the rooms to look for typing in, if anybody's presence changed.
        self.assertLessEqual(statements, 2)

    async def test_news_for_others(self) -> None:
        """The clock moved, but for a room that the user is not in."""
        await self.shared_room()
        elsewhere = await self.alice.create_room()
        since = await self.token(self.bob)
        await self.alice.send(elsewhere)
        answer, statements = await self.sync(since)
        self.assertNotIn("rooms", answer)
        self.assertLessEqual(statements, 2)

    async def test_one_message(self) -> None:
        """In one of several rooms."""
        rooms = [await self.shared_room() for _ in range(3)]
        since = await self.token(self.bob)
        await self.alice.send(rooms[1], "hello")
        answer, statements = await self.sync(since)
        self.assertEqual(list(answer["rooms"]["join"]), [rooms[1]])
        self.assertEqual(bodies(joined(answer, rooms[1])), ["hello"])
        self.assertLessEqual(statements, 7)
