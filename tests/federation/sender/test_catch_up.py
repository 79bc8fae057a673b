"""Servers that were away: what they get when they are back, and what they cost until then."""

from __future__ import annotations

from federation.sender import transmit
from federation.sender.destination import MAX_QUEUE
from storage import destinations
from tests.federation.sender.outside import World
from tests.support.databases import DatabaseTestCase, on_each_database

ONE, TWO = "one.example", "two.example"


@on_each_database
class CatchUpTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.world = World(self, await self.open())
        self.others = self.world.others

    async def test_away_for_minutes_everything_comes_in_order(self) -> None:
        """Shows TXN-4."""
        await self.world.room(1, ONE)
        await self.world.start()
        self.others.down.add(ONE)
        for number in range(70):
            await self.world.say(1, f"{number}")
        await self.world.pass_time(900, step=10)
        for number in range(70, 100):
            await self.world.say(1, f"{number}")
        await self.world.pass_time(60, step=10)
        self.others.down.clear()
        await self.world.pass_time(900, step=10)
        self.assertEqual(self.others.pdus(ONE), [f"{number}" for number in range(100)])

    async def test_away_for_hours_the_newest_of_each_room_comes_first(self) -> None:
        """Shows TXN-4."""
        for room in range(1, 61):
            await self.world.room(room, ONE, TWO)
        sender = await self.world.start()
        self.others.down.add(ONE)
        for number in range(3):
            for room in range(1, 61):
                await self.world.say(room, f"{room}/{number}")
        await self.world.pass_time(4 * 3600, step=60)
        self.others.down.clear()
        sender.heard_from(ONE)
        await self.world.pass_time(30, step=5)
        newest = [f"{room}/2" for room in range(60, 0, -1)]
        self.assertEqual(self.others.pdus(ONE), newest)
        await self.world.say(1, "and on")
        await self.world.pass_time(10)
        self.assertEqual(self.others.pdus(ONE), [*newest, "and on"])
        self.assertIsNone(await self.world.db.read(destinations.get, ONE))

    async def test_a_long_backlog_is_not_sent_whole(self) -> None:
        """Shows TXN-4."""
        self.patch(transmit, "MAX_BACKLOG", 100)
        await self.world.room(1, ONE)
        await self.world.start()
        self.others.down.add(ONE)
        for number in range(130):
            await self.world.say(1, f"{number}")
        await self.world.pass_time(900, step=10)
        self.others.down.clear()
        await self.world.pass_time(900, step=10)
        self.assertEqual(self.others.pdus(ONE), ["129"])

    async def test_a_queue_that_is_full_loses_nothing(self) -> None:
        await self.world.room(1, ONE)
        await self.world.start()
        self.others.down.add(ONE)
        wanted = [f"{number}" for number in range(MAX_QUEUE + 100)]
        for body in wanted:
            await self.world.say(1, body)
        await self.world.pass_time(10)
        self.others.down.clear()
        await self.world.pass_time(60)
        self.assertEqual(self.others.pdus(ONE), wanted)

    async def test_killed_while_a_server_catches_up(self) -> None:
        """Shows TXN-4."""
        await self.world.room(1, ONE)
        await self.world.start()
        await self.world.stop()
        wanted = [f"{number}" for number in range(300)]
        for body in wanted:
            await self.world.say(1, body)
        await self.world.start()
        self.world.kill()
        await self.world.say(1, "last")
        await self.world.start()
        await self.world.pass_time(10)
        taken = self.others.pdus(ONE)
        self.assertEqual(set(taken), {*wanted, "last"})
        self.assertEqual(taken[-1], "last")

    async def test_dead_servers_are_not_looked_after(self) -> None:
        dead = [f"d{number}.example" for number in range(200)]
        await self.world.room(1, ONE, *dead)
        await self.world.start()
        self.others.down.update(dead)
        await self.world.say(1, "first")
        await self.world.pass_time(4 * 3600, step=60)
        names: list[str] = []
        attempts = len(self.others.attempts)
        self.world.db._observe = lambda timing: names.append(timing.name)
        for number in range(10):
            await self.world.say(1, f"{number}")
            await self.world.settle()
        self.assertEqual(self.others.pdus(ONE)[1:], [f"{number}" for number in range(10)])
        self.assertEqual(len(self.others.attempts), attempts + 10)
        self.assertLessEqual(names.count("NewsReader.read"), 10)
        self.assertNotIn("NewsReader.newest", names)
        [sender] = self.world.senders
        self.assertEqual(sender.unreachable, 200)
        self.assertEqual(sum(len(each.pdus) for each in sender._destinations.values()), 0)
        timers = [call for call in self.world.clock.getDelayedCalls() if "Schedule" in str(call)]
        self.assertLessEqual(len(timers), 1)

    async def test_a_thousand_servers_cost_no_readings_of_their_own(self) -> None:
        names = [f"s{number}.example" for number in range(1000)]
        await self.world.room(1, *names)
        await self.world.start()
        statements: dict[str, int] = {}

        def observe(timing: object) -> None:
            name, count = timing.name, timing.statements  # type: ignore[attr-defined]
            statements[name] = statements.get(name, 0) + count

        await self.world.pass_time(2)
        self.world.db._observe = observe
        await self.world.say(1, "hello")
        await self.world.settle()
        self.assertEqual(len(self.others.taken), 1000)
        self.assertLess(statements["NewsReader.read"], 12)
        self.assertLessEqual(set(statements), {"NewsReader.read", "_add_event"})
