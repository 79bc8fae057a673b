"""What waits for one server, without a database."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from federation.sender.destination import (
    FIRST_INTERVAL_MS,
    KEEP_FOR_ATTEMPTS,
    MAX_HEARD_PAUSE_MS,
    MAX_INTERVAL_MS,
    MAX_QUEUE,
    SHARDS,
    Destination,
    Item,
    Outgoing,
    shard_of,
)


def sending(*positions: int, after: int = 0) -> Outgoing:
    return Outgoing("t", b"{}", tuple(Item(pos, b"{}") for pos in positions), 0, after, 0)


class CursorTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.destination = Destination("one.example")

    def test_everything_was_sent(self) -> None:
        self.assertEqual(self.destination.cursor(70), 70)
        self.assertFalse(self.destination.has_work)

    def test_up_to_the_first_that_waits(self) -> None:
        self.destination.put(Item(10, b""), is_edu=False)
        self.destination.put(Item(8, b""), is_edu=True)
        self.assertEqual(self.destination.cursor(70), 7)

    def test_what_is_under_way_is_not_there_yet(self) -> None:
        self.destination.transaction = sending(5, 6, after=4)
        self.destination.put(Item(10, b""), is_edu=False)
        self.assertEqual(self.destination.cursor(70), 4)
        self.destination.delivered()
        self.assertEqual(self.destination.cursor(70), 9)

    def test_a_full_queue_remembers_where_to_go_on(self) -> None:
        for pos in range(1, MAX_QUEUE + 1):
            self.assertTrue(self.destination.put(Item(pos, b""), is_edu=False))
        self.assertFalse(self.destination.put(Item(MAX_QUEUE + 5, b""), is_edu=False))
        self.assertEqual(self.destination.loaded, MAX_QUEUE + 4)
        self.destination.pdus.clear()
        self.assertEqual(self.destination.cursor(9999), MAX_QUEUE + 4)
        self.assertTrue(self.destination.has_work)


class BackOffTest(SynchronousTestCase):
    def test_it_grows_to_the_ceiling_with_jitter(self) -> None:
        """Shows TXN-5."""
        one, two = Destination("one.example"), Destination("two.example")
        now, random = 0, Random(7)
        waits = []
        for _ in range(20):
            one.failed(now, random)
            two.failed(now, random)
            self.assertNotEqual(one.retry_at, two.retry_at)
            waits.append(one.retry_at - now)
            now = one.retry_at
        self.assertLess(waits[0], FIRST_INTERVAL_MS * 2)
        self.assertEqual(one.interval, MAX_INTERVAL_MS)
        self.assertTrue(all(wait <= MAX_INTERVAL_MS for wait in waits))
        self.assertTrue(all(wait >= MAX_INTERVAL_MS * 0.75 for wait in waits[-3:]))

    def test_as_long_as_the_server_asks_for(self) -> None:
        destination = Destination("one.example")
        destination.failed(0, Random(1), retry_after=90_000)
        self.assertEqual(destination.retry_at, 90_000)
        destination.failed(0, Random(1), retry_after=10**15)
        self.assertLessEqual(destination.retry_at, MAX_INTERVAL_MS)

    def test_hearing_from_it_ends_the_wait(self) -> None:
        """Shows TXN-5."""
        destination = Destination("one.example")
        for _ in range(20):
            destination.failed(0, Random(1))
        self.assertTrue(destination.heard_from(1_000_000))
        self.assertEqual((destination.retry_at, destination.interval), (1_000_000, 0))
        self.assertFalse(destination.heard_from(1_000_000))

    def test_who_speaks_and_cannot_be_reached_is_not_tried_all_the_time(self) -> None:
        destination = Destination("one.example")
        now = attempts = 0
        while now < 24 * 3600 * 1000:
            destination.failed(now, Random(1))
            attempts += 1
            destination.interval = MAX_INTERVAL_MS
            destination.retry_at = now + MAX_INTERVAL_MS
            destination.heard_from(now + 10)
            now = destination.retry_at
        self.assertLess(attempts, 24 * 3600 * 1000 / MAX_HEARD_PAUSE_MS + 20)

    def test_memory_is_let_go_and_events_apart_are_noted(self) -> None:
        destination = Destination("one.example")
        destination.transaction = sending(5, after=4)
        destination.put(Item(6, b"", apart=True), is_edu=False)
        for attempt in range(1, KEEP_FOR_ATTEMPTS):
            self.assertEqual(destination.failed(attempt, Random(1)), [])
            self.assertIsNotNone(destination.transaction)
        self.assertEqual(destination.failed(9, Random(1)), [6])
        self.assertIsNone(destination.transaction)
        self.assertTrue(destination.behind)
        self.assertEqual((len(destination.pdus), destination.cursor(99)), (0, 4))


class ShardTest(SynchronousTestCase):
    def test_servers_are_spread(self) -> None:
        found = [shard_of(f"s{number}.example") for number in range(1600)]
        self.assertEqual(set(found), set(range(SHARDS)))
        self.assertGreater(min(map(found.count, range(SHARDS))), 60)
