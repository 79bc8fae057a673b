"""What sliding sync asks of the database: a bound on statements, which noise cannot break."""

from __future__ import annotations

from typing import Any

from homeserver.sync.sliding.engine import Found, SlidingEngine
from homeserver.sync.sliding.long_poll import SlidingSync
from storage.transaction import Transaction
from tests.homeserver.sync.sliding.scene import SlidingTestCase, texts, window

STATE = [
    ["m.room.name", ""],
    ["m.room.encryption", ""],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
    ["m.room.topic", ""],
    ["m.room.avatar", ""],
    ["m.room.canonical_alias", ""],
    ["m.room.power_levels", ""],
    ["m.room.join_rules", ""],
    ["m.room.tombstone", ""],
    ["m.room.create", ""],
    ["m.room.history_visibility", ""],
]
"""As the Rust SDK asks for a room list."""


class StatementsTest(SlidingTestCase):
    async def prepare(self) -> None:
        await super().prepare()
        self.statements: list[int] = []
        sync = self.server.homeserver.services[SlidingSync]
        engine: SlidingEngine = sync._engine
        read = engine.read

        def counted(txn: Transaction, *args: Any, **options: Any) -> Found:
            found = read(txn, *args, **options)
            self.statements.append(txn.statements)
            return found

        self.patch(engine, "read", counted)
        # Else messages are told from memory.
        sync.caught_up.is_off = True

    async def counted(self, pos: str | None = None, last: int = 19) -> tuple[Any, int]:
        """Bob's answer, and how many statements it took."""
        self.statements.clear()
        lists = {
            "all_rooms": window(
                (0, last),
                limit=1,
                required_state=STATE,
                filters={"not_room_types": ["m.space"]},
            )
        }
        extensions = {
            name: {"enabled": True} for name in ("account_data", "receipts", "typing", "e2ee")
        }
        answer = await self.slide(self.bob, pos, lists=lists, extensions=extensions)
        self.assertEqual(len(self.statements), 1)
        return answer, self.statements[0]

    async def rooms(self, count: int) -> list[str]:
        found = []
        for number in range(count):
            found.append(await self.shared_room(name=f"Room {number}"))
            for text in ("hello", "again"):
                await self.alice.send(found[-1], text)
        return found

    async def test_first_window(self) -> None:
        """Neither all rooms nor each room of the window costs statements of their own, but for
        the unread count."""
        await self.rooms(30)
        answer, few = await self.counted(last=4)
        self.assertEqual(len(answer["rooms"]), 5)
        answer, many = await self.counted(last=19)
        self.assertEqual(len(answer["rooms"]), 20)
        self.assertLessEqual(many - few, 20 - 5)
        self.assertLessEqual(many, 20 + 20)

    async def test_nothing_new(self) -> None:
        await self.rooms(5)
        elsewhere = await self.alice.create_room()
        answer, _ = await self.counted()
        await self.alice.send(elsewhere)
        answer, statements = await self.counted(answer["pos"])
        self.assertEqual(answer["rooms"], {})
        self.assertLessEqual(statements, 5)

    async def test_one_message(self) -> None:
        rooms = await self.rooms(5)
        answer, _ = await self.counted()
        await self.alice.send(rooms[2], "news")
        answer, statements = await self.counted(answer["pos"])
        self.assertEqual(list(answer["rooms"]), [rooms[2]])
        self.assertEqual(texts(answer["rooms"][rooms[2]]), ["news"])
        self.assertLessEqual(statements, 10)

    async def test_nothing_is_written_for_a_message(self) -> None:
        """A connection whose rooms are all followed keeps its number."""
        rooms = await self.rooms(3)
        first, _ = await self.counted()
        await self.alice.send(rooms[0], "news")
        second, _ = await self.counted(first["pos"])
        self.assertEqual(first["pos"].split("_")[0], second["pos"].split("_")[0])
        self.assertNotEqual(first["pos"], second["pos"])
