"""The bus over Redis; tests/storage/test_bus.py has the contract that it shares with memory."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

from structlog.testing import capture_logs
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from storage import redis_bus
from storage.database import sleep
from storage.redis import RedisAddress
from storage.redis_bus import TOGETHER, RedisBus
from tests.support.databases import redis_url
from tests.support.services import RedisServer


class RedisBusTest(TestCase):
    timeout = 30

    async def _bus(self) -> RedisBus:
        # Other tests use the same Redis at the same time.
        bus = await RedisBus.connect(redis_url(), reactor, f"{self.id()}:")
        self.addCleanup(bus.close)
        return bus

    async def _settled(self, done: object) -> None:
        for _ in range(200):
            if done():  # type: ignore[operator]
                return
            await sleep(reactor, 0.01)  # type: ignore[arg-type]

    async def test_messages_reach_all_processes_until_they_unsubscribe(self) -> None:
        one, two = await self._bus(), await self._bus()
        heard: list[bytes] = []
        ready: list[str] = []
        one.on_gap(lambda channels: ready.extend(channels))
        unsubscribe = one.subscribe("room:1", heard.append)
        await self._settled(lambda: ready)
        two.publish("room:2", b"not for me")
        two.publish("room:1", b"theirs")
        one.publish("room:1", b"own")
        await self._settled(lambda: len(heard) == 2)
        self.assertEqual(sorted(heard), [b"own", b"theirs"])
        unsubscribe()
        again: list[bytes] = []
        two.subscribe("room:1", again.append)
        await self._settled(lambda: False)
        two.publish("room:1", b"later")
        await self._settled(lambda: again)
        self.assertEqual(again, [b"later"])
        self.assertEqual(len(heard), 2)

    async def test_what_another_program_says_is_passed_over(self) -> None:
        bus, other = await self._bus(), await self._bus()
        heard: list[bytes] = []
        ready: list[str] = []
        bus.on_gap(lambda channels: ready.extend(channels))
        bus.subscribe("room:1", heard.append)
        await self._settled(lambda: ready)
        with capture_logs() as lines:
            for wrong in (b"x", b"1", b"5:abc", b"-3:abc", b"1_0:", b"", b":", b"\xff:1"):
                other.publish(TOGETHER, wrong)
            other.publish_all(["room:1"] + [f"room:{number}" for number in range(9, 19)], b"real")
            await self._settled(lambda: heard)
        self.assertEqual(heard, [b"real"])
        self.assertEqual({line["log_level"] for line in lines}, {"warning"})

    async def test_the_log_tells_when_redis_is_away_and_back(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="hearth-redis-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        server = RedisServer(directory)
        server.create()
        self.addCleanup(server.stop)
        with capture_logs() as lines:
            bus = await RedisBus.connect(server.url, reactor)
            self.addCleanup(bus.close)
            self.assertEqual(lines, [])
            await deferToThread(server.stop)
            await self._settled(lambda: lines)
            await deferToThread(server.start)
            await self._settled(lambda: bus.reliable)
        self.assertEqual([line["log_level"] for line in lines], ["warning", "info"])
        self.assertIn("again", lines[1]["event"])

    async def test_redis_that_is_gone_without_a_word(self) -> None:
        """Nothing ends the connection: that nothing is answered shows it."""
        directory = Path(tempfile.mkdtemp(prefix="hearth-redis-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        server = RedisServer(directory)
        server.create()
        self.addCleanup(server.stop)
        self.patch(redis_bus, "PING_SECONDS", 0.1)
        bus = await RedisBus.connect(server.url, reactor)
        self.addCleanup(bus.close)
        gaps: list[str] = []
        bus.on_gap(gaps.extend)
        bus.subscribe("a", lambda payload: None)
        await self._settled(lambda: gaps)
        connection = bus._connection
        await sleep(reactor, 1.0)  # type: ignore[arg-type]
        self.assertTrue(bus.reliable)
        self.assertIs(bus._connection, connection)
        os.kill(server.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, server.pid, signal.SIGCONT)
        gaps.clear()
        await self._settled(lambda: not bus.reliable)
        self.assertFalse(bus.reliable)
        with capture_logs() as lines:
            await self._settled(lambda: bus._connection is not connection)
        self.assertIsNot(bus._connection, connection)
        self.assertIn("Lost the connection", lines[0]["event"])
        os.kill(server.pid, signal.SIGCONT)
        with capture_logs():
            await self._settled(lambda: gaps and bus.reliable)
        self.assertEqual(gaps, ["a"])

    def test_urls(self) -> None:
        self.assertEqual(
            RedisAddress.parse("redis://me:s%40crt@host:1234/2"),
            RedisAddress("host", 1234, None, 2, "me", "s@crt"),
        )
        self.assertEqual(RedisAddress.parse("unix:///run/redis.sock").path, "/run/redis.sock")
        for url in ("http://x", "redis://host/notanumber"):
            with self.assertRaises(ValueError):
                RedisAddress.parse(url)
