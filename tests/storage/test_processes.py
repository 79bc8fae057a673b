"""Heartbeats, on both databases."""

from __future__ import annotations

from twisted.internet.task import Clock

from storage import jobs, leases, processes
from storage.machine import Machine
from storage.processes import Heartbeat, Process
from tests.support.databases import DatabaseTestCase, on_each_database


class FakeMachine(Machine):
    """A machine with one process for each PID that is not said to be gone."""

    def __init__(self, pid: int = 1, name: str = "here") -> None:
        super().__init__()
        self.pid = pid
        self.name = name
        self.gone: set[int] = set()

    def is_gone(self, pid: int, last_seen_ts: int) -> bool:
        return pid in self.gone


@on_each_database
class HeartbeatTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.died: list[str] = []
        self.machine = FakeMachine()

    def heartbeat(
        self, process_id: str, start: float, *, alone: bool = False
    ) -> tuple[Heartbeat, Clock]:
        clock = Clock()
        clock.advance(start)
        died = self.died.append
        heart = Heartbeat(self.db, clock, process_id, died, alone=alone, machine=self.machine)
        return heart, clock

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

    async def leave(self, process_id: str, host: str, pid: int) -> None:
        """What a process that was killed leaves behind."""
        await self.db.write(processes.beat, Process(process_id, host, pid, 1, 1))
        await self.db.write(leases.claim, [process_id], process_id, 0, 10**15)

    async def owner(self, lease: str) -> str | None:
        return await self.db.read(leases.owner_of, lease, 1)

    async def test_what_the_killed_of_this_machine_held_is_free_at_once(self) -> None:
        await self.leave("killed", "here", 7)
        await self.leave("runs", "here", 8)
        await self.leave("elsewhere", "there", 7)
        await self.db.write(jobs.enqueue, "kind", {}, 1)
        (job,) = await self.db.write(jobs.claim, ["kind"], "killed", 1, 10**15, 1)
        self.machine.gone.add(7)
        heart, _ = self.heartbeat("a", 1000)
        await heart.start()
        self.assertEqual(sorted(await self.ids()), ["a", "elsewhere", "runs"])
        self.assertIsNone(await self.owner("killed"))
        self.assertEqual(await self.owner("runs"), "runs")
        self.assertEqual(await self.owner("elsewhere"), "elsewhere")
        (again,) = await self.db.write(jobs.claim, ["kind"], "a", 2, 1, 1)
        self.assertEqual((again.job_id, again.attempts), (job.job_id, 2))
        await heart.stop()

    async def test_a_process_killed_beside_this_one_is_found_by_the_next_beat(self) -> None:
        heart, _ = self.heartbeat("a", 1000)
        await heart.start()
        await self.leave("b", "here", 7)
        await heart.beat()
        self.assertEqual(self.died, [])
        self.machine.gone.add(7)
        await heart.beat()
        self.assertEqual(self.died, ["b"])
        self.assertIsNone(await self.owner("b"))
        await heart.stop()

    async def test_who_is_alone_takes_over_from_all(self) -> None:
        await self.leave("killed", "there", 7)
        await self.leave("other", "here", 8)
        heart, _ = self.heartbeat("a", 1000, alone=True)
        await heart.start()
        self.assertEqual(await self.ids(), ["a"])
        self.assertIsNone(await self.owner("killed"))
        self.assertIsNone(await self.owner("other"))
        await heart.stop()
