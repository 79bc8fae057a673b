"""Limits that processes keep together in Redis."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from config.model import Rate, RateLimits
from homeserver.core.errors import MatrixError
from homeserver.core.ids import UserID
from homeserver.web.limits import MemoryRateLimiter
from homeserver.web.request import Request, Requester
from homeserver.web.shared_limits import RETRY_MS, SharedRateLimiter
from storage.database import sleep
from storage.redis import RedisAddress
from tests.support.databases import default_kind, migrated_database, reactor, redis_url
from tests.support.server import make_server
from tests.support.services import RedisServer

ALICE = Requester(UserID("@alice:example.org"))
RATES = RateLimits(
    login=Rate(per_second=0.001, burst=5),
    message=Rate(per_second=0.001, burst=100),
    join=Rate(per_second=0, burst=2),
    write=Rate(per_second=20, burst=1),
    exempt_users=("@bot:example.org",),
)
_prefixes = itertools.count(1)


class SharedCase(TestCase):
    timeout = 60
    clock: Any = reactor

    def setUp(self) -> None:
        self.prefix = f"test{next(_prefixes)}:{time.time()}:"

    def limiter(self, url: str | None = None, limits: RateLimits = RATES) -> SharedRateLimiter:
        """That of one process."""
        client = RedisAddress.parse(url or redis_url()).client(reactor)
        self.addCleanup(client.close)
        alone = MemoryRateLimiter(limits, self.clock)
        return SharedRateLimiter(limits, self.clock, client, alone, self.prefix)

    async def allowed(
        self, limiter: SharedRateLimiter, rate: str, requester: Requester | None = ALICE, **of: Any
    ) -> bool:
        try:
            await limiter.check(requester, Request("GET", "/", **of), rate)
        except MatrixError as error:
            self.assertEqual((error.status, error.errcode), (429, "M_LIMIT_EXCEEDED"))
            self.assertGreater(error.extra["retry_after_ms"], 0)
            return False
        return True


class SharingTest(SharedCase):
    def setUp(self) -> None:
        super().setUp()
        # However busy the machine is, nobody gives up Redis: it does answer.
        self.clock = Clock()

    async def test_a_limit_that_was_set_for_a_user(self) -> None:
        """Shows XC-4."""
        bob = Requester(UserID("@bob:example.org"), rate=(0, 3))
        processes = [self.limiter() for _ in range(2)]
        granted = [await self.allowed(each, "message", bob) for each in processes * 3]
        self.assertEqual(sum(granted), 3)
        # Of other classes it only raises what is usual.
        granted = [await self.allowed(each, "join", bob) for each in processes * 3]
        self.assertEqual(sum(granted), 3)
        granted = [await self.allowed(each, "login", bob) for each in processes * 3]
        self.assertEqual(sum(granted), 5)

    async def test_processes_grant_together_what_one_would(self) -> None:
        """Shows HTTP-10."""
        processes = [self.limiter() for _ in range(3)]
        for rate, burst in (("login", 5), ("message", 100)):
            asked = [
                Deferred.fromCoroutine(self.allowed(process, rate))
                for _ in range(burst)
                for process in processes
            ]
            self.assertEqual(sum(await gatherResults(asked)), burst, rate)

    async def test_users_addresses_and_classes(self) -> None:
        limiter = self.limiter()
        bob = Requester(UserID("@bob:example.org"))
        for who in (
            {"requester": ALICE},
            {"requester": bob},
            {"requester": None, "remote_address": "192.0.2.1"},
            {"requester": None, "remote_address": "192.0.2.2"},
            {"requester": None, "remote_address": "2001:db8::1"},
        ):
            given: Any = who
            found = [await self.allowed(limiter, "join", **given) for _ in range(3)]
            self.assertEqual(found, [True, True, False], who)
        same_network: Any = {"requester": None, "remote_address": "2001:db8::2"}
        self.assertFalse(await self.allowed(limiter, "join", **same_network))
        self.assertTrue(await self.allowed(limiter, "login"))
        with self.assertRaises(KeyError):
            await limiter.spend("nothing", "x")

    async def test_exempt_users(self) -> None:
        limiter = self.limiter()
        for requester in (
            Requester(UserID("@bot:example.org")),
            Requester(UserID("@bridge:example.org"), is_rate_limited=False),
        ):
            for _ in range(4):
                self.assertTrue(await self.allowed(limiter, "join", requester))

    async def test_buckets_refill(self) -> None:
        limiter = self.limiter()
        self.assertTrue(await self.allowed(limiter, "write"))
        wait_ms = 0
        while not wait_ms:  # on a busy machine the bucket may be full again
            try:
                await limiter.spend("write", ALICE.user_id)
            except MatrixError as error:
                wait_ms = error.extra["retry_after_ms"]
        self.assertLessEqual(wait_ms, 50)
        await sleep(reactor, wait_ms / 1000 + 0.005)
        self.assertTrue(await self.allowed(limiter, "write"))

    async def test_disabled(self) -> None:
        limiter = self.limiter(limits=RateLimits(enabled=False, join=RATES.join))
        self.assertEqual({await self.allowed(limiter, "join") for _ in range(9)}, {True})


class AwayTest(SharedCase):
    async def test_each_limits_for_itself_while_redis_is_away(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="hearth-redis-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        server = RedisServer(directory)
        server.create()
        self.addCleanup(server.stop)
        limiter = self.limiter(server.url)
        self.assertTrue(await self.allowed(limiter, "join"))
        redis: Any = limiter._redis
        await deferToThread(server.stop)
        while redis.connected:
            await sleep(reactor, 0.005)
        found = [await self.allowed(limiter, "join") for _ in range(4)]
        self.assertEqual(found, [True, True, False, False])
        await deferToThread(server.start)
        while not redis.connected:
            await sleep(reactor, 0.005)
        limiter._away_until -= RETRY_MS
        bob = Requester(UserID("@bob:example.org"))
        self.assertTrue(await self.allowed(limiter, "join", bob))

    async def test_a_redis_that_keeps_silent(self) -> None:
        asked: list[Deferred[Any]] = []

        class Silent:
            def command(self, *arguments: Any) -> Deferred[Any]:
                asked.append(Deferred())
                return asked[-1]

        alone = MemoryRateLimiter(RATES, reactor)
        limiter = SharedRateLimiter(RATES, reactor, Silent(), alone, self.prefix)
        found = [await self.allowed(limiter, "join") for _ in range(4)]
        self.assertEqual(found, [True, True, False, False])
        self.assertEqual(len(asked), 1)
        # As if the clock had been set back by an hour.
        limiter._away_until += 3_600_000
        await self.allowed(limiter, "join")
        self.assertEqual(len(asked), 2)


class ServersTest(TestCase):
    timeout = 60

    async def test_two_processes_of_one_server(self) -> None:
        """Shows HTTP-10."""
        if default_kind() != "postgres":
            raise SkipTest("several processes need PostgreSQL")
        database = migrated_database(self)
        limits = {"enabled": True, "create_room": {"per_second": 0.001, "burst": 4}}
        name = f"limits{time.time_ns()}.test"
        servers = [
            await make_server(
                self,
                server_name=name,
                database_url=database,
                redis={"url": redis_url()},
                rate_limits=limits,
            )
            for _ in range(2)
        ]
        alice = await servers[0].register("alice")
        statuses = []
        for number in range(6):
            client = servers[number % 2].client.with_token(alice.token)
            answer = await client.full("POST", "/_matrix/client/v3/createRoom", {})
            statuses.append(answer.status)
        self.assertEqual(statuses, [200, 200, 200, 200, 429, 429])
        self.assertGreater(int(answer.headers["retry-after"]), 1)
