"""Several processes share the destinations."""

from __future__ import annotations

from federation.sender.destination import SHARDS
from storage import processes
from storage.processes import Process
from tests.federation.sender.outside import World
from tests.support.databases import DatabaseTestCase, on_each_database

NAMES = [f"s{number}.example" for number in range(40)]


@on_each_database
class ShardsTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.url = self.database_url()
        self.world = World(self, await self.open(self.url))
        await self.world.room(1, *NAMES)
        await self.beat(self.world)

    async def beat(self, world: World) -> None:
        token = world.db.process_token
        now = int(world.clock.seconds() * 1000)
        await world.db.write(processes.beat, Process(token, "host", 1, now, now))

    async def second(self) -> World:
        """Another process on the same database, with the same clock and the same others."""
        world = World(self, await self.open(self.url))
        world.clock, world.others = self.world.clock, self.world.others
        await self.beat(world)
        return world

    async def both(self, other: World, seconds: int) -> None:
        for _ in range(seconds):
            self.world.clock.advance(1)
            for _ in range(3):
                await self.world.settle()
                await other.settle()
                await other.db.look()
                await self.world.db.look()

    def held(self, world: World) -> set[int]:
        return world.senders[0]._live

    async def test_a_newcomer_gets_half_and_nothing_is_lost(self) -> None:
        """Shows TXN-4."""
        await self.world.start()
        self.assertEqual(len(self.held(self.world)), SHARDS)
        await self.world.say(1, "first")
        await self.world.settle()
        other = await self.second()
        await other.start()
        await self.both(other, 15)
        self.assertEqual(len(self.held(self.world)), SHARDS // 2)
        self.assertEqual(len(self.held(other)), SHARDS // 2)
        self.assertFalse(self.held(self.world) & self.held(other))
        await self.world.say(1, "second")
        await self.both(other, 3)
        for name in NAMES:
            self.assertEqual(self.world.others.pdus(name), ["first", "second"], name)

    async def test_a_process_that_dies_is_replaced(self) -> None:
        """Shows TXN-4."""
        await self.world.start()
        other = await self.second()
        await other.start()
        await self.both(other, 15)
        self.world.others.down.update(NAMES)
        await self.world.say(1, "hello")
        await self.both(other, 1)
        other.kill()
        await self.world.db.write(processes.remove, other.db.process_token)
        self.world.others.down.clear()
        await self.world.pass_time(60)
        self.assertEqual(len(self.held(self.world)), SHARDS)
        for name in NAMES:
            self.assertIn("hello", self.world.others.pdus(name), name)

    async def test_heard_by_the_process_that_does_not_serve(self) -> None:
        """Shows TXN-5."""
        sender = await self.world.start()
        heard: list[bytes] = []
        sender._bus.subscribe("federation_heard", heard.append)
        sender._live.clear()
        for _ in range(5):
            sender.heard_from(NAMES[0])
        await self.world.settle()
        self.assertEqual(heard, [NAMES[0].encode()])
