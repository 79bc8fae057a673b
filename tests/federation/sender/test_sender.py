"""Transactions: order, one at a time, retries, back-off, restart."""

from __future__ import annotations

from functools import partial, update_wrapper

from twisted.internet.defer import Deferred

from federation.sender.destination import MAX_INTERVAL_MS
from federation.sender.sender import PRUNE_S
from storage import destinations, outgoing_to_device
from tests.federation.sender.outside import World
from tests.support.databases import DatabaseTestCase, on_each_database

ONE, TWO = "one.example", "two.example"


@on_each_database
class SenderTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.world = World(self, await self.open())
        self.others = self.world.others

    async def test_events_go_to_the_servers_in_the_room(self) -> None:
        await self.world.room(1, ONE, TWO)
        await self.world.room(2, TWO)
        await self.world.start()
        await self.world.say(1, "both")
        await self.world.say(2, "two only")
        await self.world.say(1, "not ours", outgoing=False)
        await self.world.settle()
        self.assertEqual(self.others.pdus(ONE), ["both"])
        self.assertEqual(self.others.pdus(TWO), ["both", "two only"])

    async def test_the_body_is_canonical_and_complete(self) -> None:
        await self.world.room(1, ONE)
        await self.world.start()
        await self.world.say(1, "ä")
        await self.world.settle()
        [sent] = self.others.to(ONE)
        now = int(self.world.clock.seconds() * 1000)
        self.assertEqual(
            sent.body.decode(),
            f'{{"edus":[],"origin":"here.example","origin_server_ts":{now},"pdus":'
            '[{"content":{"body":"\\u00e4"},"type":"m.room.message"}]}',
        )

    async def test_order_one_at_a_time_at_most_fifty(self) -> None:
        """Shows TXN-3."""
        await self.world.room(1, ONE)
        await self.world.start()
        held: Deferred[None] = Deferred()
        self.others.held[ONE] = held
        for number in range(120):
            await self.world.say(1, f"{number}")
        await self.world.settle()
        self.assertEqual(len(self.others.attempts), 1)
        del self.others.held[ONE]
        held.callback(None)
        await self.world.settle()
        self.assertEqual(self.others.pdus(ONE), [f"{number}" for number in range(120)])
        self.assertEqual(self.others.most_under_way, 1)
        self.assertEqual(max(len(sent.pdus) for sent in self.others.taken), 50)
        ids = [sent.txn_id for sent in self.others.taken]
        self.assertEqual(len(set(ids)), len(ids))

    async def test_the_same_transaction_until_it_is_taken(self) -> None:
        """Shows TXN-3."""
        await self.world.room(1, ONE)
        await self.world.start()
        self.others.down.add(ONE)
        await self.world.say(1, "first")
        await self.world.settle()
        await self.world.say(1, "second")
        await self.world.pass_time(20)
        self.assertGreater(len(self.others.attempts), 1)
        self.others.down.clear()
        await self.world.pass_time(60)
        first, second = self.others.to(ONE)
        self.assertEqual((first.pdus, second.pdus), (["first"], ["second"]))
        repeated = {(sent.txn_id, sent.body) for sent in self.others.attempts[:-1]}
        self.assertEqual(repeated, {(first.txn_id, first.body)})

    async def test_messages_for_a_server_that_never_comes_back_are_bounded(self) -> None:
        for name in ("crowded", "drop_oldest"):
            bounded = partial(getattr(outgoing_to_device, name), max_messages=5)
            self.patch(outgoing_to_device, name, update_wrapper(bounded, bounded.func))
        await self.world.start()
        self.others.down.add(ONE)
        ids = [await self.world.message(ONE) for _ in range(8)]
        await self.world.pass_time(PRUNE_S, step=600)
        self.others.down.clear()
        await self.world.pass_time(2 * PRUNE_S, step=600)
        found = [edu["message_id"] for edu in self.others.edus(ONE, "m.direct_to_device")]
        # The first ones were in the transaction that was tried again and again.
        self.assertEqual(found[-5:], ids[-5:])
        self.assertNotIn(ids[2], found)

    async def test_one_server_that_is_down_does_not_hold_up_another(self) -> None:
        await self.world.room(1, ONE, TWO)
        await self.world.start()
        self.others.held[ONE] = Deferred()
        self.others.down.add(ONE)
        for number in range(3):
            await self.world.say(1, f"{number}")
            await self.world.settle()
        self.assertEqual(self.others.pdus(TWO), ["0", "1", "2"])
        self.others.held.pop(ONE).callback(None)
        await self.world.settle()

    async def test_back_off_grows_to_hours_and_ends_when_the_server_is_heard_from(self) -> None:
        """Shows TXN-5."""
        await self.world.room(1, ONE)
        sender = await self.world.start()
        self.others.down.add(ONE)
        await self.world.say(1, "hello")
        await self.world.settle()
        while len(self.others.attempts) < 16:
            await self.world.pass_time(MAX_INTERVAL_MS / 1000, step=MAX_INTERVAL_MS / 64_000)
        row = await self.world.db.read(destinations.get, ONE)
        assert row is not None
        self.assertEqual(row.retry_interval, MAX_INTERVAL_MS)
        self.assertEqual(sender.unreachable, 1)
        attempts = len(self.others.attempts)
        self.others.down.clear()
        await self.world.pass_time(60)
        self.assertEqual(len(self.others.attempts), attempts)
        sender.heard_from(ONE)
        await self.world.settle()
        self.assertEqual(self.others.pdus(ONE), ["hello"])
        await self.world.pass_time(10)
        self.assertIsNone(await self.world.db.read(destinations.get, ONE))
        self.assertEqual(sender.unreachable, 0)

    async def test_attempts_are_few_and_further_and_further_apart(self) -> None:
        """Shows TXN-5."""
        await self.world.room(1, ONE)
        await self.world.start()
        self.others.down.add(ONE)
        await self.world.say(1, "hello")
        await self.world.settle()
        await self.world.pass_time(3600, step=10)
        self.assertLess(len(self.others.attempts), 14)
        self.assertGreater(len(self.others.attempts), 7)

    async def test_back_off_survives_a_restart(self) -> None:
        """Shows TXN-5."""
        await self.world.room(1, ONE)
        await self.world.start()
        self.others.down.add(ONE)
        await self.world.say(1, "hello")
        await self.world.pass_time(1800, step=10)
        row = await self.world.db.read(destinations.get, ONE)
        assert row is not None
        await self.world.stop()
        attempts = len(self.others.attempts)
        await self.world.start()
        wait = row.retry_at / 1000 - self.world.clock.seconds()
        await self.world.pass_time(wait - 10, step=10)
        self.assertEqual(len(self.others.attempts), attempts)
        self.others.down.clear()
        await self.world.pass_time(20)
        self.assertEqual(self.others.pdus(ONE), ["hello"])

    async def test_what_was_not_sent_is_sent_after_a_restart(self) -> None:
        """Shows TXN-4."""
        await self.world.room(1, ONE, TWO)
        await self.world.start()
        await self.world.say(1, "before")
        await self.world.settle()
        await self.world.stop()
        await self.world.say(1, "meanwhile")
        await self.world.start()
        self.assertEqual(self.others.pdus(ONE), ["before", "meanwhile"])
        self.assertEqual(self.others.pdus(TWO), ["before", "meanwhile"])

    async def test_nothing_is_lost_when_the_process_dies(self) -> None:
        """Shows TXN-4."""
        await self.world.room(1, ONE, TWO)
        await self.world.start()
        await self.world.say(1, "taken")
        await self.world.settle()
        self.others.held[ONE] = Deferred()
        await self.world.say(1, "on the way")
        await self.world.pass_time(8)
        await self.world.say(1, "behind it")
        await self.world.settle()
        self.world.kill()
        await self.world.start()
        self.assertEqual(self.others.pdus(ONE)[:1], ["taken"])
        self.assertEqual(self.others.pdus(ONE)[-2:], ["on the way", "behind it"])
        self.assertLessEqual({"taken", "on the way", "behind it"}, set(self.others.pdus(TWO)))

    async def test_another_process_takes_over(self) -> None:
        """Shows TXN-4."""
        await self.world.room(1, ONE, TWO)
        await self.world.start()
        self.others.down |= {ONE}
        await self.world.say(1, "hello")
        await self.world.settle()
        self.world.kill()
        self.others.down.clear()
        await self.world.start()
        await self.world.pass_time(60)
        self.assertIn("hello", self.others.pdus(ONE))
        self.assertIn("hello", self.others.pdus(TWO))

    async def test_two_processes_send_everything_once(self) -> None:
        names = [f"s{number}.example" for number in range(40)]
        await self.world.room(1, *names)
        await self.world.start()
        await self.world.start()
        await self.world.say(1, "hello")
        await self.world.pass_time(3)
        for name in names:
            self.assertEqual(self.others.pdus(name), ["hello"], name)

    async def test_a_transaction_that_is_too_large_is_divided(self) -> None:
        """Shows TXN-16."""
        await self.world.room(1, ONE)
        await self.world.start()
        self.others.max_pdus[ONE] = 3
        held: Deferred[None] = Deferred()
        self.others.held[ONE] = held
        for number in range(20):
            await self.world.say(1, f"{number}")
        await self.world.settle()
        del self.others.held[ONE]
        held.callback(None)
        await self.world.pass_time(600, step=5)
        self.assertEqual(self.others.pdus(ONE), [f"{number}" for number in range(20)])

    async def test_nothing_is_written_for_an_event_while_servers_are_healthy(self) -> None:
        names = [f"s{number}.example" for number in range(30)]
        await self.world.room(1, *names)
        await self.world.start()
        await self.world.pass_time(5)
        written: list[str] = []
        self.world.db._observe = lambda timing: written.append(timing.name)
        for number in range(20):
            await self.world.say(1, f"{number}")
            await self.world.settle()
        await self.world.pass_time(5)
        self.assertEqual(self.others.pdus(names[0]), [f"{number}" for number in range(20)])
        rows = await self.world.db.read(lambda txn: txn.value("SELECT COUNT(*) FROM destinations"))
        self.assertEqual(rows, 0)
        self.assertLess(written.count("_write"), 4)
