"""The feed: hints, lost hints, cache invalidations; on both databases."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from storage import database
from storage import feed as feed_module
from storage.bus import MemoryBus
from storage.database import Database
from storage.feed import Feed
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database, reactor


class TestBus(MemoryBus):
    """A bus between two databases that are open in this process; `reliable` can be set."""

    reliable = True
    loses = False

    def publish(self, channel: str, payload: bytes) -> None:
        if not self.loses:
            super().publish(channel, payload)


def commit(txn: Transaction, *channels: str) -> int:
    pos = txn.next_pos()
    txn.notify(*channels)
    return pos


@on_each_database
class FeedTest(DatabaseTestCase):
    timeout = 60

    async def prepare(self) -> None:
        url = self.database_url()
        self.bus = TestBus(reactor)
        self.clock = Clock()
        self.clock.advance(1000)
        self.here, self.feed = await self.process(url)
        self.there, self.there_feed = await self.process(url)
        self.heard: list[tuple[str, int]] = []
        self.missed: list[None] = []
        self.feed.on_missed(lambda: self.missed.append(None))

    async def process(self, url: str) -> tuple[Database, Feed]:
        db = await self.open(url, bus=self.bus)
        feed = Feed(db, self.bus, self.clock)
        await feed.start()
        self.addCleanup(feed.stop)
        return db, feed

    def listen(self, channel: str) -> Any:
        return self.feed.subscribe(channel, lambda pos: self.heard.append((channel, pos)))

    async def tick(self) -> None:
        """The clock is read, and what it says is applied."""
        self.clock.advance(feed_module.INTERVAL)
        await self.here.look()
        await database.sleep(reactor, 0)

    async def until_heard(self, count: int) -> None:
        while len(self.heard) < count:
            await database.sleep(reactor, 0.005)

    async def test_own_hints_arrive_before_the_write_returns_and_once(self) -> None:
        self.listen("room:1")
        await self.here.write(commit, "room:1", "room:2")
        self.assertEqual(self.heard, [("room:1", 1)])
        await self.there.write(commit, "room:1")
        await self.until_heard(2)
        self.assertEqual(self.heard, [("room:1", 1), ("room:1", 2)])

    async def test_after_a_hint_the_position_covers_it(self) -> None:
        self.listen("room:1")
        pos = await self.there.write(commit, "room:1")
        await self.until_heard(1)
        self.assertEqual(await self.here.position(), pos)

    async def test_unsubscribing(self) -> None:
        stop = self.listen("room:1")
        self.listen("room:2")
        stop()
        stop()
        await self.here.write(commit, "room:1", "room:2")
        await self.there.write(commit, "room:1", "room:2")
        await self.until_heard(2)
        self.assertEqual(self.heard, [("room:2", 1), ("room:2", 2)])

    async def test_a_failing_listener_does_not_keep_hints_from_others(self) -> None:
        self.feed.subscribe("room:1", lambda pos: 1 // 0)
        self.listen("room:1")
        await self.here.write(commit, "room:1")
        self.assertEqual(self.heard, [("room:1", 1)])

    async def test_hints_without_a_commit(self) -> None:
        self.listen("room:1")
        self.feed.publish("room:1")
        self.assertEqual(self.heard, [("room:1", 0)])
        self.there_feed.publish("room:1")
        await self.until_heard(2)

    async def test_nonsense_on_the_bus_is_ignored(self) -> None:
        self.listen("room:1")
        for payload in (b"", b"x:", b":", b"x:-1", b"\xff\xfe", b"x:1e5"):
            self.bus.publish("room:1", payload)
        self.bus.publish("room:1", b"somebody:0")
        await self.until_heard(1)
        self.assertEqual(self.heard, [("room:1", 0)])

    async def test_a_hint_from_the_future_does_not_stop_the_clock(self) -> None:
        self.listen("room:1")
        self.bus.publish("room:1", b"somebody:999999999")
        await self.until_heard(1)
        self.assertEqual(await self.here.position(), 0)
        self.assertFalse(self.here.positions.behind)
        await self.here.write(commit, "room:1")
        self.assertEqual(await self.here.position(), 1)

    async def test_lost_hints_are_noticed_while_the_bus_is_away(self) -> None:
        """Shows SYN-3."""
        self.bus.loses, self.bus.reliable = True, False
        await self.there.write(commit, "room:1")
        await self.tick()
        self.assertEqual(len(self.missed), 1)
        self.assertEqual(await self.here.position(), 1)
        await self.tick()
        self.assertEqual(len(self.missed), 1)

    async def test_hints_that_were_lost_before_the_bus_knew(self) -> None:
        """A bus may notice late that it is away; what came long before is not looked for."""
        await self.there.write(commit, "room:1")
        for _ in range(feed_module.DOUBTED):
            await self.tick()
        self.bus.reliable = False
        await self.tick()
        self.assertEqual(self.missed, [])
        self.bus.reliable = True
        await self.tick()
        self.bus.loses = True
        await self.there.write(commit, "room:1")
        await self.tick()
        await self.tick()
        self.assertEqual(self.missed, [])
        self.bus.reliable = False
        await self.tick()
        self.assertEqual(len(self.missed), 1)
        await self.tick()
        self.assertEqual(len(self.missed), 1)

    async def test_own_commits_are_never_missed(self) -> None:
        self.bus.reliable = False
        for _ in range(5):
            await self.here.write(commit, "room:1")
        await self.tick()
        self.assertEqual(self.missed, [])

    async def test_a_bus_that_carries_everything_causes_no_alarm(self) -> None:
        await self.there.write(commit, "room:1")
        await self.tick()
        self.assertEqual(await self.here.position(), 1)
        self.assertEqual(self.missed, [])
        self.feed.missed()
        self.assertEqual(len(self.missed), 1)

    async def test_invalidations_are_followed_without_the_bus(self) -> None:
        dropped: list[str] = []
        self.bus.loses = True
        self.feed.on_invalidate("profiles", dropped.append, lambda: dropped.append("everything"))
        await self.there.write(lambda txn: txn.invalidate("profiles", "@a:x"))
        await self.tick()
        self.assertEqual(dropped, ["@a:x"])

    async def test_old_invalidations_are_forgotten_and_sleepers_empty_their_caches(self) -> None:
        dropped: list[str] = []
        self.feed.stop()
        self.feed.on_invalidate("profiles", dropped.append, lambda: dropped.append("everything"))
        await self.there.write(lambda txn: txn.invalidate("profiles", "@a:x"))
        # As if it had been written long before.
        await self.there.write(lambda txn: txn.execute("UPDATE invalidations SET added_ts = 1"))
        self.clock.advance(feed_module.KEEP_INVALIDATIONS)
        while await self.there.read(lambda txn: txn.one("SELECT 1 FROM invalidations")):
            self.clock.advance(feed_module.INTERVAL)
            await self.there.look()
        await self.here.look()
        self.assertEqual(dropped, ["everything"])
        await self.there.write(lambda txn: txn.invalidate("profiles", "@b:x"))
        await self.here.look()
        self.assertEqual(dropped, ["everything", "@b:x"])

    async def test_a_database_that_is_away_does_not_end_the_feed(self) -> None:
        async def away(*args: Any) -> None:
            raise database.DatabaseUnavailable("simulated")

        self.patch(self.here, "read", away)
        self.clock.advance(feed_module.INTERVAL)
        self.patch(self.here, "read", Database.read.__get__(self.here))
        await self.there.write(commit, "room:1")
        await self.tick()
        self.assertEqual(await self.here.position(), 1)
