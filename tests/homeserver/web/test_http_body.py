from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from homeserver.core.errors import MatrixError, too_large
from homeserver.web.http_body import HIGH_WATER, BodyStream


class BodyStreamTests(TestCase):
    def setUp(self) -> None:
        self.asked = 0
        self.stream = BodyStream(self._ask)

    def _ask(self) -> None:
        self.asked += 1

    async def read(self) -> list[bytes]:
        return [chunk async for chunk in self.stream]

    async def test_ready(self) -> None:
        self.stream.feed(b"a")
        self.stream.feed(b"b")
        self.stream.end()
        self.assertEqual(await self.read(), [b"a", b"b"])
        self.assertEqual(self.asked, 0)

    async def test_waits(self) -> None:
        reading = Deferred.fromCoroutine(self.read())
        self.assertEqual(self.asked, 1)
        self.stream.feed(b"a")
        self.assertEqual(self.asked, 2)
        self.stream.end()
        self.assertEqual(await reading, [b"a"])

    async def test_error_after_data(self) -> None:
        self.stream.feed(b"a")
        self.stream.fail(too_large())
        self.assertEqual(await anext(self.stream), b"a")
        for _ in range(2):
            with self.assertRaises(MatrixError):
                await anext(self.stream)

    async def test_no_error_after_the_end(self) -> None:
        self.stream.end()
        self.stream.fail(too_large())
        self.assertEqual(await self.read(), [])

    async def test_full(self) -> None:
        self.stream.feed(b"x" * (HIGH_WATER - 1))
        self.assertFalse(self.stream.is_full)
        self.stream.feed(b"x")
        self.assertTrue(self.stream.is_full)
        await anext(self.stream)
        self.assertFalse(self.stream.is_full)

    async def test_cancelled_reader(self) -> None:
        reading = Deferred.fromCoroutine(self.read())
        reading.cancel()
        with self.assertRaises(CancelledError):
            await reading
        self.stream.feed(b"a")
        self.stream.end()
        self.assertEqual(await self.read(), [b"a"])
