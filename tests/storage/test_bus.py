"""The contract of the bus, in memory and over Redis."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from storage.bus import Bus, MemoryBus, once
from storage.database import sleep
from storage.redis_bus import RedisBus
from tests.support.databases import reactor, redis_url
from tests.support.services import RedisServer


async def until(condition: Callable[[], object]) -> None:
    """Returns once `condition()` is true; the test's time-out ends the waiting."""
    while not condition():
        await sleep(reactor, 0.005)


class Listener:
    """Everything that a bus says."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard: list[tuple[str, bytes]] = []
        self.gaps: list[str] = []
        bus.on_gap(self._gap)

    def _gap(self, channels: Collection[str]) -> None:
        self.gaps.extend(channels)

    def listen(self, channel: str) -> Callable[[], None]:
        return self.bus.subscribe(channel, lambda payload: self.heard.append((channel, payload)))


class BusContract:
    """`pair` gives two buses that reach each other: the same one twice for a single process."""

    timeout = 60
    pair: Callable[[], Any]
    settle: Callable[[Listener, str], Any]

    async def test_one_message_reaches_many_channels(self: Any) -> None:
        one, two = await self.pair()
        here, there = Listener(one), Listener(two)
        channels = [f"room:{number}:ü\n+*" for number in range(20)]
        for channel in channels[5:]:
            here.listen(channel)
        there.listen(channels[0])
        for listener in (here, there):
            await self.settle(listener, channels[19] if listener is here else channels[0])
        for count in (1, 4, 5, 20):
            one.publish_all(channels[:count], b"%d:\x00\xff\r\n" % count)
        await until(lambda: len(here.heard) >= 15 and len(there.heard) >= 4)
        self.assertEqual(here.heard, [(name, b"20:\x00\xff\r\n") for name in channels[5:]])
        payloads = [b"%d:\x00\xff\r\n" % count for count in (1, 4, 5, 20)]
        self.assertEqual(there.heard, [(channels[0], payload) for payload in payloads])

    async def test_a_message_reaches_every_subscriber_of_its_channel(self: Any) -> None:
        one, two = await self.pair()
        here, there = Listener(one), Listener(two)
        here.listen("room:!ü:x")
        here.listen("room:!ü:x")
        there.listen("room:!ü:x")
        there.listen("user:@a:x")
        await self.settle(here, "room:!ü:x")
        await self.settle(there, "user:@a:x")
        await self.settle(there, "room:!ü:x")
        one.publish("room:!ü:x", b"\x00\xff\r\n1")
        one.publish("user:@b:x", b"nobody")
        one.publish("user:@a:x", b"2")
        await until(lambda: len(here.heard) == 2 and len(there.heard) == 2)
        self.assertEqual(here.heard, [("room:!ü:x", b"\x00\xff\r\n1")] * 2)
        self.assertEqual(there.heard, [("room:!ü:x", b"\x00\xff\r\n1"), ("user:@a:x", b"2")])

    async def test_messages_keep_their_order(self: Any) -> None:
        one, two = await self.pair()
        there = Listener(two)
        there.listen("a")
        await self.settle(there, "a")
        for i in range(200):
            one.publish("a", b"%d" % i)
        await until(lambda: len(there.heard) == 200)
        self.assertEqual([int(payload) for _, payload in there.heard], [*range(200)])

    async def test_unsubscribing_ends_one_subscription_only(self: Any) -> None:
        one, two = await self.pair()
        there = Listener(two)
        stop = there.listen("a")
        there.listen("a")
        there.listen("end")
        await self.settle(there, "a")
        await self.settle(there, "end")
        stop()
        stop()
        one.publish("a", b"1")
        one.publish("end", b"")
        await until(lambda: ("end", b"") in there.heard)
        self.assertEqual(there.heard, [("a", b"1"), ("end", b"")])

    async def test_the_last_unsubscription_and_a_new_subscription(self: Any) -> None:
        one, two = await self.pair()
        there = Listener(two)
        for _ in range(3):
            there.listen("a")()
        there.listen("a")
        await self.settle(there, "a")
        one.publish("a", b"1")
        await until(lambda: there.heard)
        self.assertEqual(there.heard, [("a", b"1")])

    async def test_a_failing_subscriber_does_not_keep_messages_from_others(self: Any) -> None:
        one, two = await self.pair()
        two.subscribe("a", lambda payload: 1 // 0)
        there = Listener(two)
        there.listen("a")
        await self.settle(there, "a")
        one.publish("a", b"1")
        one.publish("a", b"2")
        await until(lambda: len(there.heard) == 2)

    async def test_a_subscriber_may_unsubscribe_while_it_is_called(self: Any) -> None:
        one, two = await self.pair()
        there = Listener(two)
        stops: list[Callable[[], None]] = []
        stops.append(two.subscribe("a", lambda payload: stops[0]()))
        there.listen("a")
        await self.settle(there, "a")
        one.publish("a", b"1")
        one.publish("a", b"2")
        await until(lambda: len(there.heard) == 2)

    async def test_nothing_is_delivered_after_closing(self: Any) -> None:
        one, two = await self.pair()
        there = Listener(two)
        there.listen("a")
        await self.settle(there, "a")
        await two.close()
        await two.close()
        one.publish("a", b"1")
        await sleep(reactor, 0.02)
        self.assertEqual(there.heard, [])


class MemoryBusTest(BusContract, TestCase):
    async def pair(self) -> tuple[Bus, Bus]:
        bus = MemoryBus(reactor)
        return bus, bus

    async def settle(self, listener: Listener, channel: str) -> None:
        """A subscription in memory holds at once."""


class RedisBusContractTest(BusContract, TestCase):
    async def pair(self) -> tuple[Bus, Bus]:
        return await self.connect(), await self.connect()

    async def connect(self, url: str | None = None) -> RedisBus:
        bus = await RedisBus.connect(url or redis_url(), reactor, f"test:{self.id()}:")
        self.addCleanup(bus.close)
        return bus

    async def settle(self, listener: Listener, channel: str) -> None:
        await until(lambda: channel in listener.gaps)

    async def test_servers_that_share_a_redis_do_not_hear_each_other(self) -> None:
        ours = await self.connect()
        theirs = await RedisBus.connect(redis_url(), reactor, "theirs:")
        self.addCleanup(theirs.close)
        listener = Listener(ours)
        listener.listen("a")
        await self.settle(listener, "a")
        theirs.publish("a", b"theirs")
        await sleep(reactor, 0.02)
        ours.publish("a", b"ours")
        await until(lambda: listener.heard)
        self.assertEqual(listener.heard, [("a", b"ours")])


class RedisRestartTest(TestCase):
    """Redis goes away and comes back, a server of its own."""

    timeout = 60

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="hearth-redis-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        self.server = RedisServer(directory)
        self.server.create()
        self.addCleanup(self.server.stop)

    async def test_subscriptions_are_restored_and_the_gap_is_told(self) -> None:
        one = await RedisBus.connect(self.server.url, reactor)
        two = await RedisBus.connect(self.server.url, reactor)
        for bus in (one, two):
            self.addCleanup(bus.close)
        there = Listener(two)
        there.listen("a")
        await until(lambda: there.gaps == ["a"])
        self.assertTrue(two.reliable)
        await deferToThread(self.server.stop)
        await until(lambda: not two.reliable)
        one.publish("a", b"lost")
        there.listen("b")
        await deferToThread(self.server.start)
        await until(lambda: two.reliable and {"a", "b"} <= set(there.gaps[1:]))
        # The other process also says that it could not publish, but if that comes before this
        # one listens again, its own gap has said it all.
        self.assertGreaterEqual(there.gaps.count("a"), 2)

        def both_heard() -> bool:
            # What is published before the publisher is connected again is lost, as it may be.
            for channel in ("a", "b"):
                one.publish(channel, b"found")
            return {channel for channel, _ in there.heard} == {"a", "b"}

        await until(both_heard)
        self.assertNotIn(("a", b"lost"), there.heard)

    async def test_closing_while_redis_is_away(self) -> None:
        bus = await RedisBus.connect(self.server.url, reactor)
        await deferToThread(self.server.stop)
        await until(lambda: not bus.reliable)
        bus.publish("a", b"lost")
        await bus.close()
        await deferToThread(self.server.start)


class OnceTest(SynchronousTestCase):
    def test_only_the_first_call_counts(self) -> None:
        calls: list[int] = []
        call = once(lambda: calls.append(1))
        call()
        call()
        self.assertEqual(calls, [1])
