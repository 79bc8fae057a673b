"""The contract of the ephemeral stores, in memory and in Redis."""

from __future__ import annotations

import itertools
import time
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from storage.ephemeral import EphemeralStore, MemoryEphemeral
from storage.redis_ephemeral import RedisEphemeral
from tests.support.databases import redis_url

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
        return MemoryEphemeral(reactor)  # type: ignore[arg-type]


class RedisEphemeralTest(Contract, TestCase):
    def store(self) -> EphemeralStore:
        store = RedisEphemeral(redis_url(), reactor, f"test{next(_prefixes)}:{time.time()}:")
        self.addCleanup(store._client.close)
        return store
