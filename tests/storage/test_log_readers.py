"""Reading the log after the fact, on both databases."""

from __future__ import annotations

from structlog.testing import capture_logs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from storage import clock, log_readers
from storage.database import Database
from storage.errors import DatabaseUnavailable
from storage.log_readers import AGAIN_S, DELAY_S, IDLE_STEP, PATIENCE_S, STOP_S, LogReader
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database

NAME = "messages"


class Tens(LogReader[int]):
    """Writes down each tenth position."""

    def __init__(self, db: Database, clock: Clock) -> None:
        super().__init__(db, clock, NAME)
        self.is_failing = False
        self.reads = 0

    def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, int | None]:
        self.reads += 1
        at = after - after % 10 + 10
        return (at, at) if at <= upto else (upto, None)

    def write(self, txn: Transaction, found: int) -> None:
        if self.is_failing:
            raise ValueError("no")
        txn.execute("INSERT INTO open_rooms (room_nid) VALUES (?)", (found,))


@on_each_database
class LogReaderTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.clock = Clock()
        self.reader = Tens(self.db, self.clock)

    async def advance(self, count: int) -> None:
        await self.db.write(lambda txn: txn.next_pos(count))

    async def written(self) -> list[int]:
        rows = await self.db.read(lambda txn: txn.all("SELECT room_nid FROM open_rooms"))
        return sorted(row[0] for row in rows)

    async def position(self) -> int:
        return await self.db.read(log_readers.position, NAME)

    async def passing(self, count: int, name: str = NAME) -> tuple[int, bool, int]:
        """Positions taken by a transaction that looks after its events itself: the last one,
        whether the reader was moved, and where it is then."""

        def work(txn: Transaction) -> tuple[int, bool]:
            return txn.next_pos(count, passing=name), txn.is_passed

        last, is_passed = await self.db.write(work)
        return last, is_passed, await self.position()

    async def test_it_is_moved_over_what_others_look_after(self) -> None:
        """Where it has read all events before, and then it does not read them."""
        self.assertEqual(await self.passing(1), (1, True, 1))
        self.assertEqual(await self.passing(30), (31, True, 31))
        self.assertTrue(await self.reader.catch_up())
        self.assertEqual((await self.written(), self.reader.reads), ([], 0))
        await self.advance(clock.NEAR)
        self.assertEqual(await self.passing(2), (133, True, 133))
        await self.advance(clock.NEAR + 1)
        self.assertEqual(await self.passing(2), (236, False, 133))
        self.assertEqual(await self.passing(2, "unknown"), (238, False, 133))

    async def test_it_is_moved_once_positions_were_taken(self) -> None:
        """In the same transaction, which has looked after those too."""

        def work(txn: Transaction) -> list[object]:
            txn.next_pos(3)
            return [txn.next_pos(2, passing=NAME), txn.is_passed, txn.first_pos, txn.last_pos]

        self.assertEqual(await self.db.write(work), [5, True, 1, 5])
        self.assertEqual(await self.position(), 5)

    async def test_positions_without_a_reader(self) -> None:
        def work(txn: Transaction) -> list[object]:
            txn.next_pos(3, passing=NAME)
            return [txn.next_pos(2), txn.is_passed]

        self.assertEqual(await self.db.write(work), [5, False])
        self.assertEqual(await self.position(), 3)

    async def test_it_reads_what_is_new_in_steps(self) -> None:
        await self.advance(25)
        self.assertFalse(await self.reader.catch_up(1))
        self.assertEqual(await self.written(), [10])
        self.assertTrue(await self.reader.catch_up())
        self.assertEqual((await self.written(), await self.position()), ([10, 20], 20))
        await self.advance(5)
        self.assertTrue(await self.reader.catch_up())
        self.assertEqual(await self.written(), [10, 20, 30])

    async def test_readers_of_several_processes_do_nothing_twice(self) -> None:
        others = [Tens(self.db, self.clock) for _ in range(4)]
        await self.advance(100)
        running = [Deferred.fromCoroutine(each.catch_up()) for each in others]
        await gatherResults(running)
        # A room written twice would be refused.
        self.assertEqual(await self.written(), list(range(10, 101, 10)))

    async def test_a_long_stretch_without_anything_is_written_down(self) -> None:
        class Nothing(Tens):
            def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, int | None]:
                return upto, None

        reader = Nothing(self.db, self.clock)
        await self.advance(IDLE_STEP - 1)
        await reader.catch_up()
        self.assertEqual(await self.position(), 0)
        await self.advance(1)
        await reader.catch_up()
        self.assertEqual(await self.position(), IDLE_STEP)

    async def test_steps_without_anything_lead_on(self) -> None:
        """A step that looked at all that it may, and found nothing, is not done over and over."""

        class Looking(Tens):
            def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, int | None]:
                self.reads += 1
                return min(after + 10, upto), None

        reader = Looking(self.db, self.clock)
        await self.advance(35)
        self.assertTrue(await reader.catch_up(10))
        self.assertEqual((reader.reads, await self.position()), (4, 30))

    async def test_work_that_fails_is_done_again(self) -> None:
        await self.advance(10)
        self.reader.is_failing = True
        with self.assertRaises(ValueError):
            await self.reader.catch_up()
        self.assertEqual(await self.position(), 0)
        self.reader.is_failing = False
        await self.reader.catch_up()
        self.assertEqual(await self.written(), [10])

    async def test_a_database_that_is_away(self) -> None:
        """The log says so in a line, and what is new is read once it is back."""
        await self.advance(10)
        read = self.db.read

        tries = []

        async def is_away(*args: object) -> None:
            tries.append(self.clock.seconds())
            raise DatabaseUnavailable("The database was away for 30 seconds")

        self.patch(self.db, "read", is_away)
        self.reader.wake()
        with capture_logs() as lines:
            self.clock.advance(DELAY_S)
        self.assertEqual([line["log_level"] for line in lines], ["warning"])
        self.assertNotIn("exc_info", lines[0])
        # One that is full says so at once: it is not asked all the time.
        self.clock.advance(DELAY_S)
        self.assertEqual(len(tries), 1)
        self.patch(self.db, "read", read)
        self.clock.advance(AGAIN_S - DELAY_S)
        await self.reader.stop()
        self.assertEqual(await self.written(), [10])

    async def test_once_woken_it_waits_a_little(self) -> None:
        await self.advance(10)
        self.reader.wake()
        self.reader.wake()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(DELAY_S)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        await self.reader.stop()
        self.assertEqual(await self.written(), [10])

    async def test_a_reading_that_is_lost_holds_up_nothing(self) -> None:
        """Whatever became of its turn: others begin again, and stopping ends."""
        await self.reader._turn.acquire()
        await self.advance(10)
        for _ in range(20):
            self.reader.wake()
            self.clock.advance(DELAY_S)
        self.assertEqual(len(self.reader._turn.waiting), 1)
        self.assertEqual(await self.written(), [])
        self.clock.advance(PATIENCE_S)
        await self.settled(self.db)
        self.assertEqual(await self.written(), [10])
        await self.reader._turn.acquire()
        stopping = Deferred.fromCoroutine(self.reader.stop())
        self.assertNoResult(stopping)
        self.clock.advance(STOP_S)
        await stopping
        self.flushLoggedErrors()

    async def test_news_while_reading_are_read(self) -> None:
        await self.advance(10)
        self.reader.wake()
        self.clock.advance(DELAY_S)
        await self.advance(10)
        self.reader.wake()
        self.clock.advance(DELAY_S)
        await self.settled(self.db)
        self.assertEqual(await self.written(), [10, 20])
        await self.advance(10)
        self.reader.wake()
        self.clock.advance(DELAY_S)
        await self.settled(self.db)
        self.assertEqual(await self.written(), [10, 20, 30])

    async def test_a_stopped_reader_is_not_woken(self) -> None:
        self.reader.wake()
        await self.reader.stop()
        self.reader.wake()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reader.reads, 0)
