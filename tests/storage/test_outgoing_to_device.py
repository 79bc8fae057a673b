"""What waits for the devices of servers that are away, on both databases."""

from __future__ import annotations

from storage import outgoing_to_device as module
from tests.support.databases import DatabaseTestCase, on_each_database

NAME, OTHER = "down.example", "other.example"


@on_each_database
class BoundTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()

    async def put(self, messages: int, destination: str = NAME, body: str = "x") -> None:
        for number in range(messages):
            content = {f"@u:{destination}": {"D": f'"{body}"'}}
            message_id = f"m{number}"
            await self.db.write(module.add, destination, "@a:b", "m.x", message_id, content)

    async def waiting(self, destination: str = NAME) -> list[int]:
        found, _ = await self.db.read(module.waiting, destination, 0, 1000, 10**9)
        return [each.pos for each in found]

    async def test_the_oldest_are_given_up_beyond_a_number(self) -> None:
        await self.put(10)
        await self.put(3, OTHER)
        before = await self.waiting()
        self.assertEqual(await self.db.read(module.crowded, 5), [NAME])
        self.assertEqual(await self.db.write(module.drop_oldest, NAME, 5), 5)
        self.assertEqual(await self.waiting(), before[5:])
        self.assertEqual(await self.db.read(module.crowded, 5), [])
        self.assertEqual(await self.db.write(module.drop_oldest, NAME, 5), 0)
        self.assertEqual(len(await self.waiting(OTHER)), 3)

    async def test_and_beyond_a_size_in_bytes(self) -> None:
        await self.put(8, body="ü" * 500)
        before = await self.waiting()
        self.assertEqual(await self.db.read(module.crowded, 100, 5_000), [NAME])
        dropped = await self.db.write(module.drop_oldest, NAME, 100, 5_000)
        self.assertEqual((dropped, await self.waiting()), (4, before[4:]))

    async def test_ordinary_outages_lose_nothing(self) -> None:
        await self.put(50)
        self.assertEqual(await self.db.read(module.crowded), [])
        self.assertEqual(await self.db.write(module.drop_oldest, NAME), 0)
        self.assertGreaterEqual(module.MAX_WAITING, 100_000)
        self.assertGreaterEqual(module.MAX_WAITING_BYTES, 1 << 30)
