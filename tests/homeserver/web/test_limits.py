from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from config.model import Rate, RateLimits
from homeserver.core.errors import MatrixError
from homeserver.core.ids import UserID
from homeserver.web.limits import MemoryRateLimiter, address_key
from homeserver.web.request import Request, Requester

ALICE = Requester(UserID("@alice:example.org"))
RATES = RateLimits(
    message=Rate(per_second=1, burst=3),
    login=Rate(per_second=0.1, burst=1),
    federation=Rate(per_second=1, burst=2),
)


class LimiterTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.limiter = MemoryRateLimiter(RATES, self.clock, max_buckets=10)

    async def allowed(self, requester: Requester | None, rate: str, address: str = "") -> bool:
        try:
            await self.limiter.check(requester, Request("GET", "/", remote_address=address), rate)
        except MatrixError as error:
            self.assertEqual(error.errcode, "M_LIMIT_EXCEEDED")
            return False
        return True

    async def test_burst_and_refill(self) -> None:
        """Shows HTTP-10."""
        results = [await self.allowed(ALICE, "message") for _ in range(5)]
        self.assertEqual(results, [True, True, True, False, False])
        self.clock.advance(1)
        self.assertEqual([await self.allowed(ALICE, "message") for _ in range(2)], [True, False])

    async def test_retry_after_is_true(self) -> None:
        for _ in range(3):
            self.limiter.take("message", "x")
        self.clock.advance(0.25)
        with self.assertRaises(MatrixError) as caught:
            self.limiter.take("message", "x")
        wait = caught.exception.extra["retry_after_ms"]
        self.assertEqual(wait, 750)
        self.clock.advance(wait / 1000)
        self.limiter.take("message", "x")

    async def test_classes_are_separate(self) -> None:
        self.assertTrue(await self.allowed(ALICE, "login"))
        self.assertFalse(await self.allowed(ALICE, "login"))
        self.assertTrue(await self.allowed(ALICE, "message"))
        self.assertIn("create_room", self.limiter.classes)
        self.assertNotIn("enabled", self.limiter.classes)

    async def test_servers_have_buckets_of_their_own_wherever_they_ask_from(self) -> None:
        """Shows HTTP-10."""
        for address in ("192.0.2.1", "192.0.2.2"):
            request = Request("GET", "/", remote_address=address)
            for origin in ("a.example", "b.example"):
                await self.limiter.check(None, request, "federation", origin)
        for origin in ("a.example", "b.example"):
            with self.assertRaises(MatrixError) as caught:
                await self.limiter.check(None, Request("GET", "/"), "federation", origin)
            self.assertEqual(caught.exception.extra["retry_after_ms"], 1000)

    async def test_exempt(self) -> None:
        bridge = Requester(UserID("@bridge:example.org"), is_rate_limited=False)
        self.assertEqual({await self.allowed(bridge, "login") for _ in range(9)}, {True})

    async def test_a_limit_that_was_set_for_a_user_outlasts_others(self) -> None:
        """A bucket that fills slowly is not forgotten as if it filled as usual. Shows XC-4."""
        slow = Requester(UserID("@slow:example.org"), rate=(0, 1))
        self.assertTrue(await self.allowed(slow, "message"))
        self.clock.advance(3600)
        for number in range(5):
            await self.allowed(None, "login", f"192.0.2.{number}")
        self.assertFalse(await self.allowed(slow, "message"))

    async def test_disabled(self) -> None:
        self.limiter = MemoryRateLimiter(RateLimits(enabled=False), self.clock)
        self.assertEqual({await self.allowed(ALICE, "login") for _ in range(99)}, {True})
        self.assertEqual(len(self.limiter), 0)

    async def test_memory_is_bounded(self) -> None:
        for number in range(1000):
            await self.allowed(None, "login", f"192.0.2.{number}")
        self.assertLessEqual(len(self.limiter), 10)

    async def test_full_buckets_are_forgotten(self) -> None:
        for number in range(10):
            self.limiter.take("message", str(number))
        self.clock.advance(10)
        for _ in range(5):
            self.limiter.take("message", "0")
            self.clock.advance(1)
        self.assertEqual(len(self.limiter), 1)

    async def test_forgetting_lets_nobody_through(self) -> None:
        self.assertTrue(await self.allowed(None, "login", "192.0.2.1"))
        for number in range(8):
            await self.allowed(None, "login", f"198.51.100.{number}")
            self.assertFalse(await self.allowed(None, "login", "192.0.2.1"))

    async def test_address_key(self) -> None:
        self.assertEqual(address_key("192.0.2.1"), "192.0.2.1")
        self.assertEqual(address_key("2001:db8::1"), address_key("2001:db8::ffff:2"))
        self.assertNotEqual(address_key("2001:db8::1"), address_key("2001:db8:0:1::1"))
        self.assertEqual(address_key("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertEqual(address_key("fe80::1%eth0"), address_key("fe80::2"))
        self.assertEqual(address_key(""), "")
        self.assertEqual(address_key("a:b"), "a:b")
