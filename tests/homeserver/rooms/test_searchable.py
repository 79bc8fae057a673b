"""Making texts findable after they were written."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.texts import text_of
from homeserver.rooms.searchable import STEP, SearchableTexts
from storage import clock, log_readers
from storage.message_words import Text
from storage.transaction import Transaction
from tests.support.databases import reactor
from tests.support.room_case import RoomTestCase, q

_COUNT = "SELECT COUNT(*) FROM message_words"


class SearchableTest(RoomTestCase):
    async def start(self, **room: object) -> str:
        await super().start(**room)
        self.db = self.server.homeserver.db
        self.texts = self.server.homeserver.services[SearchableTexts]
        return self.room_id

    async def count(self) -> int:
        found: int = await self.db.read(lambda txn: txn.value(_COUNT))
        return found

    async def test_what_is_redacted_while_it_is_read_stays_away(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.texts.catch_up()
        kept = await self.alice.send(self.room_id, "kept")
        gone = await self.alice.send(self.room_id, "gone")

        def read(txn: Transaction) -> object:
            after = log_readers.position(txn, "messages")
            return self.texts.read(txn, after, clock.position(txn))[1]

        found = await self.db.read(read)
        await self.put_ok(self.alice, f"redact/{q(gone)}/1", {})
        await self.db.write(lambda txn: self.texts.write(txn, found))  # type: ignore[arg-type]
        self.assertEqual(await self.count(), 1)
        await self.put_ok(self.alice, f"redact/{q(kept)}/2", {})
        self.assertEqual(await self.count(), 0)

    async def test_what_is_redacted_is_left_out_of_one_statement(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.texts.catch_up()
        gone = await self.alice.send(self.room_id, "gone")
        await self.alice.send(self.room_id, 'it\'s \\ "kept" {x,y}')

        def read(txn: Transaction) -> tuple[int, int, Sequence[Text]]:
            after, upto = log_readers.position_and_end(txn, "messages")
            found = self.texts.read(txn, after, upto)[1]
            assert found is not None
            return after, upto, found

        after, upto, found = await self.db.read(read)
        await self.put_ok(self.alice, f"redact/{q(gone)}/1", {})
        single = self.texts.single(after, upto, found)
        assert single is not None
        self.assertTrue(await self.db.write_single(single))
        self.assertEqual(await self.count(), 1)
        self.assertEqual(await self.db.read(log_readers.position, "messages"), upto)
        # The reader is elsewhere by now: nothing is done again.
        await self.db.write(lambda txn: txn.execute("DELETE FROM message_words"))
        self.assertFalse(await self.db.write_single(single))
        self.assertEqual(await self.count(), 0)

    async def test_two_processes_do_nothing_twice(self) -> None:
        """Shows MISC-3."""
        await self.start()
        other = SearchableTexts(self.db, reactor)
        for number in range(5):
            await self.alice.send(self.room_id, f"text {number}")
        running = [Deferred.fromCoroutine(each.catch_up()) for each in (self.texts, other)]
        await gatherResults(running)
        self.assertEqual(await self.count(), 5)
        await other.stop()

    async def test_more_than_one_step(self) -> None:
        await self.start()
        for number in range(STEP + 5):
            await self.alice.send(self.room_id, f"text {number}")
        while not await self.texts.catch_up(1):
            pass
        self.assertEqual(await self.count(), STEP + 5)

    async def test_only_what_is_text(self) -> None:
        await self.start()
        for content in ({}, {"body": 5}, {"body": ""}, {"body": "..."}, {"body": ["x"]}):
            await self.alice.send(self.room_id, content)
        await self.alice.send(self.room_id, {"body": "hidden"}, "m.room.encrypted")
        await self.texts.catch_up()
        self.assertEqual(await self.count(), 0)


class TextTest(RoomTestCase):
    def test_rich_topics(self) -> None:
        """Shows MISC-3."""
        plain = {"body": "plain", "mimetype": "text/plain"}
        rich = {"body": "<b>rich</b>", "mimetype": "text/html"}
        content = {"topic": "old", "m.topic": {"m.text": [rich, plain, 5, {"body": "bare"}]}}
        self.assertEqual(text_of("m.room.topic", "", content), ("t", "old\nplain\nbare"))
        self.assertIsNone(text_of("m.room.topic", "x", content))
        self.assertIsNone(text_of("m.room.topic", "", {"m.topic": [1]}))
        self.assertIsNone(text_of("m.room.message", "", {"body": "state"}))
