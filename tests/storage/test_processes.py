"""Heartbeats, on both databases."""

from __future__ import annotations

from twisted.internet.task import Clock

from storage import leases, processes
from storage.processes import Heartbeat
from tests.support.databases import DatabaseTestCase, on_each_database


@on_each_database
class HeartbeatTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.died: list[str] = []

    def heartbeat(self, process_id: str, start: float) -> tuple[Heartbeat, Clock]:
        clock = Clock()
        clock.advance(start)
        return Heartbeat(self.db, clock, process_id, self.died.append), clock

    async def ids(self) -> list[str]:
        return [row.process_id for row in await self.db.read(processes.running)]

    async def test_a_process_is_listed_while_it_runs(self) -> None:
        heart, clock = self.heartbeat("a", 1000)
        await heart.start()
        clock.advance(processes.INTERVAL)
        await self.settled(self.db)
        (row,) = await self.db.read(processes.running)
        self.assertEqual((row.process_id, row.started_ts), ("a", 1_000_000))
        self.assertEqual(row.last_seen_ts, 1_005_000)
        self.assertNotEqual(row.host, "")
        await heart.stop()
        self.assertEqual(await self.ids(), [])

    async def test_a_silent_process_is_found_dead_whatever_its_clock_says(self) -> None:
        for silent_clock in (10.0, 10_000_000.0):
            here, clock = self.heartbeat("here", 1000)
            silent, _ = self.heartbeat("silent", silent_clock)
            await silent.beat()
            await self.db.write(leases.claim, ["x"], "silent", 0, 10**15)
            await here.beat()
            clock.advance(processes.DEAD_AFTER - 1)
            await here.beat()
            self.assertEqual(self.died, [])
            self.assertEqual(sorted(await self.ids()), ["here", "silent"])
            clock.advance(1)
            await here.beat()
            self.assertEqual(self.died, ["silent"])
            self.assertEqual(await self.ids(), ["here"])
            self.assertIsNone(await self.db.read(leases.owner_of, "x", 1))
            await here.beat()
            self.assertEqual(self.died.pop(), "silent")
            await here.stop()

    async def test_a_process_that_beats_is_never_dead(self) -> None:
        here, clock = self.heartbeat("here", 1000)
        there, there_clock = self.heartbeat("there", 5)
        for _ in range(10):
            for one in (clock, there_clock):
                one.advance(processes.DEAD_AFTER)
            await there.beat()
            await here.beat()
        self.assertEqual(self.died, [])

    async def test_a_process_that_ended_or_was_buried_by_another_is_told(self) -> None:
        here, _ = self.heartbeat("here", 1000)
        there, _ = self.heartbeat("there", 1000)
        await there.start()
        await here.beat()
        await there.stop()
        await here.beat()
        self.assertEqual(self.died, ["there"])

    async def test_a_process_that_comes_back_is_listed_again(self) -> None:
        slow, clock = self.heartbeat("slow", 1000)
        await slow.beat()
        (row,) = await self.db.read(processes.running)
        self.assertTrue(await self.db.write(processes.bury, row))
        self.assertFalse(await self.db.write(processes.bury, row))
        clock.advance(1)
        await slow.beat()
        self.assertEqual(await self.ids(), ["slow"])
        self.assertFalse(await self.db.write(processes.bury, row))
