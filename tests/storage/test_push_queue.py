"""Which process tells a pusher something, and when; on both databases."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred, gatherResults

from storage import push_log, push_queue, pushers
from storage.push_log import Entry
from storage.push_queue import CLAIM_MS, Waiting, Work
from storage.pushers import PusherRow
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database

A, B = "https://a.example:443", "https://b.example:443"


def add(txn: Transaction, *pushers: int, gateway: str = A, due: int = 0, pos: int = 1) -> None:
    """Have an event wait for pushers."""
    push_queue.enqueue(txn, [Waiting(nid, pos, 7, 70 + pos, "{}", due) for nid in pushers])
    push_queue.add_work(txn, dict.fromkeys(pushers, (gateway, due)))


def put_pusher(txn: Transaction, nid: int, user_id: str) -> None:
    """A pusher that was never told anything."""
    row = PusherRow(
        pusher_nid=nid,
        user_id=user_id,
        app_id="app",
        pushkey=f"key{nid}",
        kind="http",
        app_display_name="App",
        device_display_name="Phone",
        profile_tag=None,
        lang="en",
        data="{}",
        device_id="DEVICE",
        enabled=True,
        activated=True,
        ack_token=None,
        ack_expires_ts=None,
        secret="secret",
        gateway=A,
        set_ts=0,
        since=0,
        badge=None,
        mailed_ts=None,
        mail_pause=None,
    )
    pushers.put(txn, row)


@on_each_database
class ClaimTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()

    async def claim(
        self, now: int = 1000, *, owner: str = "p", limit: int = 10, each: int = 10, busy: int = 0
    ) -> list[Work]:
        return await self.db.write(push_queue.claim, owner, now, limit, each, {A: busy})

    async def numbers(self, now: int = 1000, **options: int) -> list[int]:
        return [work.pusher_nid for work in await self.claim(now, **options)]  # type: ignore[arg-type]

    async def test_one_process_has_a_pusher(self) -> None:
        await self.db.write(add, 1, 2)
        await self.db.write(add, 3, due=2000)
        self.assertEqual(await self.numbers(), [1, 2])
        self.assertEqual(await self.claim(owner="q"), [])
        self.assertEqual(await self.db.read(push_queue.next_due, 1000), 2000)
        self.assertEqual(len(await self.claim(2001 + CLAIM_MS, owner="q")), 3)
        self.assertFalse(await self.db.write(push_queue.holds, 1, "p"))
        self.assertTrue(await self.db.write(push_queue.holds, 1, "q"))

    async def test_processes_share(self) -> None:
        await self.db.write(add, *range(40))
        claims = [ensureDeferred(self.claim(owner=str(each))) for each in range(4)]
        found = [work.pusher_nid for works in await gatherResults(claims) for work in works]
        self.assertEqual(len(found), len(set(found)))
        rest = [work.pusher_nid for work in await self.claim(limit=40, each=40)]
        self.assertEqual(sorted(found + rest), list(range(40)))

    async def test_a_gateway_gets_so_many(self) -> None:
        await self.db.write(add, 1, 2, 3, 4)
        await self.db.write(add, 5, gateway=B)
        self.assertEqual(await self.numbers(each=2, busy=2), [5])
        self.assertEqual(len(await self.claim(each=3, busy=1)), 2)

    async def test_what_comes_meanwhile(self) -> None:
        await self.db.write(add, 1)
        [work] = await self.claim()
        await self.db.write(add, 1, pos=2, due=500)
        self.assertEqual(await self.db.write(push_queue.done, 1, 1), 1)
        await self.db.write(push_queue.finish, work, "p", 1000, None)
        [work] = await self.claim()
        waiting = await self.db.read(push_queue.waiting, 1, 10)
        self.assertEqual([each.pos for each in waiting], [2])
        await self.db.write(push_queue.done, 1, push_queue.ALL)
        await self.db.write(push_queue.finish, work, "p", 1000, None)
        self.assertIsNone(await self.db.read(push_queue.next_due, 1000))

    async def test_a_gateway_that_fails(self) -> None:
        await self.db.write(add, 1, 2, 3)
        works = await self.claim()
        for work in works[:2]:
            retry = await self.db.write(push_queue.gateway_failed, A, 1000, 100, 350)
            # Both had begun before it was known to fail.
            self.assertEqual(retry, 1100)
            await self.db.write(push_queue.postpone, work, "p", 1100)
        await self.db.write(push_queue.give_back, [3], "p")
        self.assertEqual(await self.claim(1099), [])
        for now, expected in ((1100, 1300), (1300, 1650), (1650, 2000)):
            [work] = await self.claim(now)
            self.assertIsNotNone(work.gateway_attempts)
            self.assertEqual(await self.claim(now, busy=1), [])
            retry = await self.db.write(push_queue.gateway_failed, A, now, 100, 350)
            self.assertEqual(retry, expected)
            await self.db.write(push_queue.postpone, work, "p", expected)
        [failing] = await self.db.read(push_queue.failing)
        self.assertEqual((failing.attempts, failing.failing_since), (4, 1000))
        await self.db.write(push_queue.gateway_works, A)
        self.assertEqual(len(await self.claim(5000)), 3)

    async def test_a_gateway_that_fails_is_tried_with_whom_it_knows(self) -> None:
        """Keys that no gateway knows what to do with cannot keep it from being found to work."""
        await self.db.write(put_pusher, 9, "@bob:hearth.test")
        await self.db.write(pushers.set_badge, 9, 0)
        for nid in (1, 2, 3):
            await self.db.write(put_pusher, nid, "@mallory:hearth.test")
        await self.db.write(add, 1, 2, 3)
        await self.db.write(add, 9, due=10)
        await self.db.write(push_queue.gateway_failed, A, 0, 0, 0)
        self.assertEqual(await self.numbers(), [9])
        await self.db.write(push_queue.give_back, [9], "p")
        await self.db.write(push_queue.gateway_works, A)
        self.assertEqual(await self.numbers(limit=1), [1])

    async def test_a_user_gets_so_many(self) -> None:
        for nid in (1, 2, 3):
            await self.db.write(put_pusher, nid, "@bob:hearth.test")
        await self.db.write(put_pusher, 4, "@carol:hearth.test")
        await self.db.write(add, 1, 2, 3, 4)

        async def claim(limit: int, busy: int) -> list[str]:
            served = {"@bob:hearth.test": busy}
            works = await self.db.write(push_queue.claim, "p", 1000, limit, 10, {}, 2, served)
            return [work.user_id for work in works]

        self.assertEqual(await claim(1, 2), ["@carol:hearth.test"])
        self.assertEqual(await claim(10, 0), ["@bob:hearth.test"] * 2)

    async def test_a_gateway_that_wants_a_pause(self) -> None:
        await self.db.write(add, 1, 2)
        await self.db.write(push_queue.gateway_paused, A, 1000, 3000)
        self.assertEqual(await self.claim(2999), [])
        self.assertEqual(await self.numbers(3000), [1, 2])

    async def test_of_a_long_queue_the_newest_stay(self) -> None:
        self.patch(push_queue, "MAX_WAITING", 3)
        for pos in range(1, 6):
            await self.db.write(add, 1, pos=pos)
        gone = await self.db.write(push_queue.shorten, 1)
        self.assertEqual(sorted(each.pos for each in gone), [1, 2])
        self.assertEqual(await self.db.read(push_queue.count_waiting, 1), 3)
        self.assertEqual(await self.db.write(push_queue.shorten, 1), [])

    async def test_what_waited_too_long(self) -> None:
        await self.db.write(add, 1, due=10)
        await self.db.write(add, 2, due=10, gateway="mail")
        await self.db.write(add, 3, due=1000)
        old = await self.db.write(push_queue.take_old, 500, 10)
        self.assertEqual([each.pusher_nid for each in old], [1])

    async def test_the_log(self) -> None:
        entry = Entry("@a:b", 1, 5, "app", "key", "http", 7, None, "failed", "500", 1, 10, 10)
        await self.db.write(push_log.note, [entry])
        later = entry._replace(outcome="delivered", detail="", last_ts=20, event_id="$e")
        await self.db.write(push_log.note, [later])
        [found] = await self.db.read(push_log.of_user, "@a:b", 10)
        self.assertEqual(found, later._replace(attempts=2, first_ts=10))
        self.assertEqual(await self.db.write(push_log.prune, 20, 10), 0)
        self.assertEqual(await self.db.write(push_log.prune, 21, 10), 1)
