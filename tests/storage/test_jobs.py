"""The job queue, on both databases."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import Clock

from storage import jobs
from storage.bus import MemoryBus
from storage.database import sleep
from storage.feed import Feed
from storage.jobs import Job, JobRunner
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database, reactor


@on_each_database
class JobTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()

    async def enqueued(self, kind: str, payload: Any, now: int, **options: Any) -> str:
        job_id = await self.db.write(jobs.enqueue, kind, payload, now, **options)
        assert job_id is not None
        return job_id

    async def claim(self, owner: str = "a", now: int = 1000, limit: int = 10) -> list[Job]:
        return await self.db.write(jobs.claim, ["k", "l"], owner, now, 100, limit)

    async def test_a_job_is_claimed_and_completed(self) -> None:
        payload = {"room": "!ü", "n": [1, None, True]}
        job_id = await self.enqueued("k", payload, 1000)
        self.assertEqual(await self.db.read(jobs.waiting, "k"), 1)
        self.assertEqual(await self.claim(), [Job(job_id, "k", payload, 1)])
        self.assertEqual(await self.claim("b"), [])
        self.assertFalse(await self.db.write(jobs.complete, job_id, "b"))
        self.assertTrue(await self.db.write(jobs.complete, job_id, "a"))
        self.assertFalse(await self.db.write(jobs.complete, job_id, "a"))
        self.assertEqual(await self.db.read(jobs.waiting, "k"), 0)

    async def test_a_job_of_a_transaction_that_failed_does_not_exist(self) -> None:
        def fail(txn: Transaction) -> None:
            jobs.enqueue(txn, "k", 1, 1000)
            raise LookupError

        with self.assertRaises(LookupError):
            await self.db.write(fail)
        self.assertEqual(await self.claim(), [])

    async def test_jobs_come_when_due_and_in_order(self) -> None:
        await self.db.write(jobs.enqueue, "k", "later", 1000, run_at=3000)
        await self.db.write(jobs.enqueue, "l", "second", 1001)
        await self.db.write(jobs.enqueue, "k", "first", 1000)
        await self.db.write(jobs.enqueue, "unknown", "not ours", 900)
        self.assertEqual([j.payload for j in await self.claim(now=999)], [])
        self.assertEqual([j.payload for j in await self.claim(now=2000, limit=1)], ["first"])
        self.assertEqual([j.payload for j in await self.claim(now=2001)], ["second"])
        self.assertEqual([j.payload for j in await self.claim("b", now=2999)], ["first", "second"])
        self.assertEqual([j.payload for j in await self.claim("b", now=3000)], ["later"])

    async def test_a_claim_that_ran_out_passes_the_job_on(self) -> None:
        job_id = await self.enqueued("k", 1, 1000)
        await self.claim("a", 1000)
        await self.db.write(jobs.renew, [job_id], "a", 1050, 100)
        self.assertEqual(await self.claim("b", 1149), [])
        (taken,) = await self.claim("b", 1150)
        self.assertEqual(taken.attempts, 2)
        self.assertFalse(await self.db.write(jobs.complete, job_id, "a"))

    async def test_failures_are_tried_later_and_later_then_kept(self) -> None:
        await self.db.write(jobs.enqueue, "k", 1, 0)
        now, pauses = 0, []
        for attempt in range(1, 4):
            (job,) = await self.claim(now=now)
            self.assertEqual(job.attempts, attempt)
            again = await self.db.write(jobs.fail, job, "a", now, f"error\x00 {attempt}", 3)
            if again is not None:
                self.assertEqual(await self.claim(now=again - 1), [])
                pauses.append(again - now)
                now = again
        self.assertEqual(pauses, [5000, 10000])
        self.assertEqual(await self.claim(now=10**12), [])
        self.assertEqual(await self.db.read(jobs.waiting, "k"), 0)
        (kept,) = await self.db.read(jobs.failed)
        self.assertEqual((kept.kind, kept.attempts, kept.error), ("k", 3, "error 3"))
        self.assertEqual(kept.failed_ts, now)

    def test_pauses_are_bounded(self) -> None:
        self.assertEqual(jobs.retry_delay(1), 5000)
        self.assertEqual(jobs.retry_delay(1000), 3_600_000)

    async def test_a_dedup_key_is_queued_once(self) -> None:
        first = await self.enqueued("k", 1, 1000, dedup_key="room")
        self.assertIsNone(await self.db.write(jobs.enqueue, "k", 2, 1000, dedup_key="room"))
        self.assertIsNotNone(await self.db.write(jobs.enqueue, "l", 3, 1000, dedup_key="room"))
        self.assertIsNotNone(await self.db.write(jobs.enqueue, "k", 4, 1000, dedup_key="other"))
        await self.claim()
        await self.db.write(jobs.complete, first, "a")
        self.assertIsNotNone(await self.db.write(jobs.enqueue, "k", 5, 1000, dedup_key="room"))

    async def test_a_job_given_back_counts_no_attempt(self) -> None:
        job_id = await self.enqueued("k", 1, 1000)
        await self.claim()
        await self.db.write(jobs.give_back, [job_id], "a")
        (job,) = await self.claim("b")
        self.assertEqual(job.attempts, 1)

    async def test_each_job_has_one_owner(self) -> None:
        def fill(txn: Transaction) -> None:
            for i in range(60):
                jobs.enqueue(txn, "k", i, 1000)

        await self.db.write(fill)
        claims = await gatherResults(
            [ensureDeferred(self.claim(f"owner {i}", limit=7)) for i in range(10)]
        )
        self.assertTrue(all(len(claim) <= 7 for claim in claims))
        got = sorted(job.payload for claim in claims for job in claim)
        self.assertEqual(len(got), len(set(got)))
        # Who met rows that others were claiming got fewer; nothing is stuck.
        rest = await self.claim("last", limit=100)
        self.assertEqual(sorted(got + [job.payload for job in rest]), [*range(60)])


@on_each_database
class JobRunnerTest(DatabaseTestCase):
    timeout = 60

    async def prepare(self) -> None:
        self.bus = MemoryBus(reactor)
        self.db = await self.open(bus=self.bus)
        self.feed = Feed(self.db, self.bus, reactor)
        self.clock = Clock()
        self.clock.advance(1000)
        self.ran: list[Any] = []

    def runner(self, handlers: Any, **options: Any) -> JobRunner:
        runner = JobRunner(self.db, self.feed, self.clock, "a", handlers, **options)
        runner.start()
        self.addCleanup(lambda: ensureDeferred(runner.stop()))
        return runner

    async def note(self, job: Job) -> None:
        self.ran.append(job.payload)

    async def enqueue(self, payload: Any, **options: Any) -> None:
        now = int(self.clock.seconds() * 1000)
        await self.db.write(jobs.enqueue, "k", payload, now, **options)

    async def until(self, condition: Any) -> None:
        while not condition():
            await sleep(reactor, 0.005)

    async def until_queue_empty(self) -> None:
        while await self.db.read(jobs.waiting, "k"):
            await sleep(reactor, 0.005)

    async def test_jobs_run_at_once_and_are_removed(self) -> None:
        await self.enqueue("before")
        self.runner({"k": self.note})
        await self.until(lambda: self.ran == ["before"])
        await self.enqueue("after")
        await self.until_queue_empty()
        self.assertEqual(self.ran, ["before", "after"])

    async def test_more_jobs_than_run_together(self) -> None:
        gate: Deferred[None] = Deferred()
        together: list[int] = []

        async def slow(job: Job) -> None:
            self.ran.append(job.payload)
            waiting: Deferred[None] = Deferred()
            gate.addCallback(lambda _: waiting.callback(None))
            together.append(len(self.ran))
            await waiting

        self.runner({"k": slow}, concurrency=3)
        for i in range(10):
            await self.enqueue(i)
        await self.until(lambda: len(self.ran) == 3)
        await self.settled(self.db)
        self.assertEqual(len(self.ran), 3)
        gate.callback(None)
        await self.until_queue_empty()
        self.assertEqual(sorted(self.ran), [*range(10)])

    async def test_a_delayed_job_runs_when_it_is_due(self) -> None:
        self.runner({"k": self.note})
        await self.enqueue("late", run_at=1_060_000)
        self.clock.advance(59)
        await self.settled(self.db)
        self.assertEqual(self.ran, [])
        self.clock.advance(6)
        await self.until(lambda: self.ran == ["late"])

    async def test_a_failing_job_is_tried_again_and_then_kept(self) -> None:
        async def fail(job: Job) -> None:
            self.ran.append(job.attempts)
            raise LookupError("no such thing")

        self.runner({"k": fail}, max_attempts=2)
        await self.enqueue(1)
        while not await self.db.read(jobs.failed):
            await sleep(reactor, 0.005)
            self.clock.advance(1)
        self.assertEqual(self.ran, [1, 2])
        (kept,) = await self.db.read(jobs.failed)
        self.assertEqual(kept.error, "LookupError: no such thing")

    async def test_what_must_wait_for_others_is_no_fault(self) -> None:
        async def wait(job: Job) -> None:
            self.ran.append(job.attempts)
            if len(self.ran) == 1:
                raise jobs.NotYet("nobody there")

        with capture_logs() as lines:
            self.runner({"k": wait})
            await self.enqueue(1)
            while await self.db.read(jobs.waiting, "k"):
                await sleep(reactor, 0.005)
                self.clock.advance(1)
        self.assertEqual(self.ran, [1, 2])
        told = [(each["log_level"], each["event"], each.get("reason")) for each in lines]
        self.assertIn(("info", "A job waits", "nobody there"), told)
        self.assertNotIn("A job failed", [each["event"] for each in lines])

    async def test_a_long_job_keeps_its_claim(self) -> None:
        gate: Deferred[None] = Deferred()

        async def slow(job: Job) -> None:
            self.ran.append(job.attempts)
            await gate

        self.runner({"k": slow})
        await self.enqueue(1)
        await self.until(lambda: self.ran)
        for _ in range(10):
            self.clock.advance(20)
            await self.settled(self.db)
        now = int(self.clock.seconds() * 1000)
        self.assertEqual(await self.db.write(jobs.claim, ["k"], "b", now, 100, 10), [])
        gate.callback(None)
        await self.until_queue_empty()
        self.assertEqual(self.ran, [1])

    async def test_stopping_gives_running_jobs_back(self) -> None:
        async def endless(job: Job) -> None:
            self.ran.append(job.payload)
            await Deferred()

        runner = self.runner({"k": endless})
        await self.enqueue(1)
        await self.until(lambda: self.ran)
        await runner.stop()
        (job,) = await self.db.write(jobs.claim, ["k"], "b", 1_000_001, 100, 10)
        self.assertEqual(job.attempts, 1)
