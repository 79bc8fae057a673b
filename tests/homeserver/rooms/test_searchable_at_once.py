"""Texts of others' events that are findable as soon as the events are there."""

from __future__ import annotations

import random

from homeserver.rooms.searchable import SearchableTexts
from homeserver.rooms.write import WrittenRoom
from storage import clock, log_readers
from storage.message_words import Text
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database, reactor
from tests.support.events import BOB, CAROL

_ALL = {
    "postgres": "SELECT event_nid, room_nid, ts, words::text FROM message_words ORDER BY 1",
    "sqlite": "SELECT rowid, room_nid, ts, scope, words FROM message_words ORDER BY 1",
}
_TEXTS = ("Hello wörld", "", "...", "东京 tower", "a b a", "it's \\ 'x'", "emoji \U0001f600!")


@on_each_database
class AtOnceTest(ReceivingCase):
    async def start(self, version: str = "11") -> None:
        await self.enter(version)
        self.texts = SearchableTexts(self.db, reactor)
        self.addCleanup(self.texts.stop)
        self.written: list[WrittenRoom] = []
        self.services.appender.on_written += [self.written.append, self.texts.written]
        await self.texts.catch_up()
        await self.db.write(self.read_all)

    def read_all(self, txn: Transaction) -> None:
        after, end = log_readers.position_and_end(txn, "messages")
        log_readers.advance(txn, "messages", after, end)

    async def found(self) -> list[tuple[object, ...]]:
        return await self.db.read(lambda txn: txn.all(_ALL[txn.dialect.name]))

    async def places(self) -> tuple[int, int]:
        return await self.db.read(log_readers.position_and_end, "messages")

    def is_woken(self) -> bool:
        return self.texts._call is not None

    async def test_nothing_is_left_to_the_reader(self) -> None:
        await self.start()
        await self.receive(*[self.room.message(BOB, f"text {n}") for n in range(5)])
        self.assertEqual(len(await self.found()), 5)
        after, end = await self.places()
        self.assertEqual(after, end)
        self.assertTrue(self.written[-1].is_searchable)
        self.assertFalse(self.is_woken())
        # The reader finds nothing to be done again.
        await self.texts.catch_up()
        self.assertEqual(len(await self.found()), 5)

    async def test_positions_without_events_are_passed_over(self) -> None:
        await self.start()
        await self.db.write(lambda txn: txn.next_pos(3))
        await self.receive(self.room.message(BOB, "one"))
        self.assertEqual(len(await self.found()), 1)
        await self.db.write(lambda txn: txn.next_pos(clock.NEAR + 1))
        await self.receive(self.room.message(BOB, "two"))
        self.assertEqual(len(await self.found()), 1)
        self.assertTrue(self.is_woken())
        await self.texts.catch_up()
        self.assertEqual(len(await self.found()), 2)

    async def test_after_events_that_are_not_read_the_reader_does_it(self) -> None:
        await self.start()
        before = await self.places()
        await self.services.say(self.room.room_id, body="ours")
        await self.receive(self.room.message(BOB, "theirs"))
        self.assertEqual(await self.found(), [])
        self.assertFalse(self.written[-1].is_searchable)
        self.assertEqual((await self.places())[0], before[0])
        self.assertTrue(self.is_woken())
        await self.texts.catch_up()
        self.assertEqual(len(await self.found()), 2)

    async def test_long_texts_are_left_to_the_reader(self) -> None:
        """Nobody can write while they are made findable where they are added."""
        await self.start()
        long = "\u6771\u4eac " * 1_000
        await self.receive(*[self.room.message(BOB, long) for _ in range(5)])
        self.assertEqual(await self.found(), [])
        self.assertFalse(self.written[-1].is_searchable)
        self.assertTrue(self.is_woken())
        await self.texts.catch_up()
        self.assertEqual(len(await self.found()), 5)

    async def test_what_is_redacted_in_the_same_transaction_is_not_found(self) -> None:
        """Shows MISC-3."""
        await self.start()
        gone, kept = self.room.message(BOB, "gone"), self.room.message(BOB, "kept")
        await self.receive(gone, kept, self.room.redaction(BOB, gone))
        self.assertEqual(len(await self.found()), 1)
        late = self.room.message(CAROL, "late")
        await self.receive(late, self.room.redaction(CAROL, late))
        self.assertEqual(len(await self.found()), 1)

    async def test_the_reactor_writes_down_few_words(self) -> None:
        """Many are for a thread, as is reading them."""
        await self.start()
        few = [Text(1, 1, 1, "b", ["word"] * 10)]
        many = [Text(number, 1, 1, "b", ["word"] * 100) for number in range(20)]
        self.assertIsNotNone(self.texts.single(1, 2, few))
        self.assertIsNone(self.texts.single(1, 2, many))

    async def test_the_same_as_the_reader_makes(self) -> None:
        """Whatever the events are, in batches of any size."""
        await self.start()
        drawn = random.Random(7)
        events = []
        for number in range(150):
            match drawn.randrange(4):
                case 0:
                    name = drawn.choice(_TEXTS)
                    events.append(self.room.set_state("m.room.name", {"name": name}))
                case 1:
                    topic = {"topic": drawn.choice(_TEXTS) + str(number)}
                    events.append(self.room.set_state("m.room.topic", topic))
                case _:
                    words = " ".join(drawn.choices(_TEXTS, k=3))
                    events.append(self.room.message(drawn.choice((BOB, CAROL)), words))
        rest = list(events)
        while rest:
            size = drawn.choice((1, 4, 9, 50))
            await self.receive(*rest[:size])
            del rest[:size]
        self.assertTrue(all(room.is_searchable for room in self.written))
        at_once = await self.found()
        self.assertGreater(len(at_once), 30)

        def again(txn: Transaction) -> None:
            txn.execute("DELETE FROM message_words")
            txn.execute("UPDATE log_readers SET pos = 0 WHERE name = 'messages'")

        await self.db.write(again)
        await self.texts.catch_up()
        ours = [row[0] for row in at_once]
        self.assertEqual([row for row in await self.found() if row[0] in ours], at_once)

    async def test_they_are_counted(self) -> None:
        await self.start()
        told: list[tuple[bool, int]] = []
        texts = SearchableTexts(
            self.db, reactor, lambda at_once, count: told.append((at_once, count))
        )
        self.services.appender.on_written.append(texts.written)
        self.addCleanup(texts.stop)
        await self.receive(self.room.message(BOB, "one"), self.room.message(BOB, "two"))
        await self.services.say(self.room.room_id, body="ours")
        self.assertEqual(told, [(True, 2), (False, 1)])
