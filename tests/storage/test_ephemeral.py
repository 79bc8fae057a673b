"""The contract of the ephemeral stores, in memory and in Redis."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from storage.database import sleep
from storage.ephemeral import EphemeralStore, MemoryEphemeral
from storage.redis_ephemeral import RETRY_MS, TIMEOUT_S, RedisEphemeral
from tests.support.databases import reactor, redis_url
from tests.support.services import RedisServer

_prefixes = itertools.count(1)
A, B = "@a:hearth.test", "@b:hearth.test"


class Contract:
    """Tests that every store passes."""

    timeout = 30
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertGreater: Any
    addCleanup: Any

    def store(self) -> EphemeralStore:
        raise AssertionError("a subclass makes the store")

    def _later(self) -> int:
        return int(time.time() * 1000) + 60_000

    async def test_typing_starts_and_stops(self) -> None:
        """Shows RCP-7."""
        store = self.store()
        start = await store.position()
        self.assertTrue(await store.set_typing("!r", A, self._later()))
        self.assertFalse(await store.set_typing("!r", A, self._later()))
        self.assertTrue(await store.set_typing("!r", B, self._later()))
        self.assertEqual(await store.typing(["!r", "!other"], start), {"!r": [A, B]})
        self.assertEqual(await store.typing(["!r", "!other"], None), {"!r": [A, B]})
        middle = await store.position()
        self.assertEqual(await store.typing(["!r"], middle), {})
        self.assertTrue(await store.set_typing("!r", A, None))
        self.assertFalse(await store.set_typing("!r", A, None))
        await store.set_typing("!r", B, None)
        self.assertEqual(await store.typing(["!r"], middle), {"!r": []})
        self.assertEqual(await store.typing(["!r"], None), {})

    async def test_typing_in_all_rooms(self) -> None:
        store = self.store()
        start = await store.position()
        self.assertEqual(await store.typing_since(start), {})
        for room_id, user_id in (("!r", B), ("!r", A), ("!other", A)):
            await store.set_typing(room_id, user_id, self._later())
        self.assertEqual(await store.typing_since(start), {"!r": [A, B], "!other": [A]})
        middle = await store.position()
        self.assertEqual(await store.typing_since(middle), {})
        await store.set_typing("!other", A, None)
        self.assertEqual(await store.typing_since(middle), {"!other": []})

    async def test_typing_ends_by_time(self) -> None:
        """Shows RCP-7."""
        store = self.store()
        await store.set_typing("!r", A, 1)
        await store.set_typing("!r", B, self._later())
        start = await store.position()
        self.assertEqual(await store.expire_typing(), ["!r"])
        self.assertEqual(await store.expire_typing(), [])
        self.assertEqual(await store.typing(["!r"], start), {"!r": [B]})

    async def test_presence_has_a_serial_that_moves_when_announced(self) -> None:
        store = self.store()
        first = await store.put_presence(A, '{"presence": "online"}')
        self.assertEqual(await store.put_presence(A, "quiet", announce=False), first)
        self.assertGreater(await store.put_presence(A, "loud"), first)
        found = await store.presence([A, B])
        self.assertEqual(list(found), [A])
        self.assertEqual(found[A].value, "loud")
        self.assertEqual(found[A].serial, await store.position())

    async def test_the_counter_begins_at_the_time(self) -> None:
        self.assertGreater(await self.store().position(), 1_600_000_000_000)


class MemoryEphemeralTest(Contract, TestCase):
    def store(self) -> EphemeralStore:
        return MemoryEphemeral(reactor)


class RedisEphemeralTest(Contract, TestCase):
    def store(self) -> EphemeralStore:
        # However busy the machine is: Redis does answer.
        prefix = f"test{next(_prefixes)}:{time.time()}:"
        store = RedisEphemeral(redis_url(), reactor, prefix, timeout_s=60)
        self.addCleanup(store._client.close)
        return store


class RedisAwayTest(TestCase):
    timeout = 60

    async def test_the_server_works_on_while_redis_is_away(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="hearth-redis-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        server = RedisServer(directory)
        server.create()
        self.addCleanup(server.stop)
        store = RedisEphemeral(server.url, reactor, timeout_s=60)
        self.addCleanup(store.close)
        until = int(time.time() * 1000) + 60_000
        await store.set_typing("!r", A, until)
        before = await store.position()
        await deferToThread(server.stop)
        while store._client.connected:
            await sleep(reactor, 0.005)
        self.assertFalse(await store.set_typing("!r", B, until))
        self.assertEqual(await store.position(), before)
        self.assertEqual(await store.typing(["!r"], None), {})
        self.assertEqual(await store.expire_typing(), [])
        self.assertEqual(await store.put_presence(A, "online"), before)
        self.assertEqual(await store.presence([A]), {})
        await deferToThread(server.start)
        while not store._client.connected:
            await sleep(reactor, 0.005)
        self.assertTrue(await store.set_typing("!r", B, until))
        self.assertGreater(await store.position(), before)
        self.assertEqual(await store.typing(["!r"], before), {"!r": [B]})

    async def test_a_redis_that_hangs_is_waited_for_once(self) -> None:
        asked: list[Deferred[Any]] = []

        class Silent:
            def command(self, *arguments: Any) -> Deferred[Any]:
                asked.append(Deferred())
                return asked[-1]

        clock: Any = Clock()
        store = RedisEphemeral("unix:///nowhere", MemoryReactorClock())
        self.patch(store, "_clock", clock)
        self.patch(store, "_client", Silent())
        first = [ensureDeferred(store.typing(["!r"], None)) for _ in range(2)]
        clock.advance(TIMEOUT_S - 0.1)
        self.assertNoResult(first[0])
        clock.advance(0.2)
        self.assertEqual([self.successResultOf(each) for each in first], [{}, {}])
        # From now on nobody waits, until Redis is asked again.
        self.assertEqual(await store.position(), 0)
        self.assertEqual(await store.presence([A]), {})
        self.assertEqual(len(asked), 2)
        asked[0].callback([])  # at last, and nobody's
        clock.advance(RETRY_MS / 1000)
        again = ensureDeferred(store.position())
        asked[-1].callback(b"7")
        self.assertEqual((len(asked), self.successResultOf(again)), (3, 7))
        self.assertEqual(clock.getDelayedCalls(), [])

        # Somebody sets the clock back meanwhile.
        silent = ensureDeferred(store.position())
        clock.advance(TIMEOUT_S + 0.1)
        self.successResultOf(silent)
        clock.rightNow -= 3600
        again = ensureDeferred(store.position())
        asked[-1].callback(b"8")
        self.assertEqual((len(asked), self.successResultOf(again)), (5, 8))
