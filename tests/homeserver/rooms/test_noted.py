"""Outliers whose numbers are remembered from their insertion on."""

from __future__ import annotations

from collections.abc import Mapping
from unittest.mock import patch

from homeserver.core.event import Event
from homeserver.rooms.noted import Noted
from storage import events, rooms
from storage.events import ACCEPTED, REJECTED
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database
from tests.support.events import ALICE as REMOTE
from tests.support.events import BOB

TOPIC = "m.room.topic"


@on_each_database
class NotedTest(ReceivingCase):
    async def numbers(self, noted: Noted) -> Mapping[str, int]:
        def read(txn: Transaction) -> Mapping[str, int]:
            return dict(noted.numbers(txn, rooms.nid(txn, self.room.room_id) or 0))

        return await self.db.read(read)

    async def stored(self, *wanted: Event) -> dict[str, int]:
        names = [event.event_id for event in wanted]

        def read(txn: Transaction) -> dict[str, int]:
            return {row.event_id: row.event_nid for row in events.numbers(txn, names)}

        return await self.db.read(read)

    async def test_what_was_inserted(self) -> None:
        """As the tables have it; of several parts, with those that are rejected."""
        await self.enter()
        noted = Noted()
        dora = self.room.join("@dora:b.example")
        forged = self.room.set_state(TOPIC, {"topic": "x"}, BOB, add=False)
        later = self.room.join("@eve:b.example")
        statuses: dict[str, int] = {}
        for part in ([dora, forged], [later]):
            judged = await self.receiver.add_outliers(self.room.room_id, part, noted)
            statuses |= {name: found.status for name, found in judged.items()}
        self.assertEqual(statuses[forged.event_id], REJECTED)
        self.assertEqual(statuses[later.event_id], ACCEPTED)
        self.assertEqual(await self.numbers(noted), await self.stored(dora, forged, later))
        self.assertEqual(noted.rejected, {forged.event_id})

    async def test_somebody_was_faster(self) -> None:
        """What is stored by now, against expectations, is found, and not noted."""
        await self.enter()
        noted = Noted()
        dora, eve = self.room.join("@dora:b.example"), self.room.join("@eve:b.example")
        first = await self.receiver.add_outliers(self.room.room_id, [dora])
        again = await self.receiver.add_outliers(self.room.room_id, [dora, eve], noted)
        self.assertEqual(again[dora.event_id].status, first[dora.event_id].status)
        self.assertEqual([found.is_new for found in again.values()], [False, True])
        self.assertEqual(await self.numbers(noted), await self.stored(eve))

    async def test_nothing_is_looked_up(self) -> None:
        await self.enter()
        dora = self.room.join("@dora:b.example")
        asked: list[str] = []
        get_many = events.get_many

        def watched(txn: Transaction, names: list[str]) -> object:
            asked.extend(names)
            return get_many(txn, names)

        with patch.object(events, "get_many", watched):
            await self.receiver.add_outliers(self.room.room_id, [dora], Noted())
        self.assertLessEqual(set(dora.auth_event_ids), set(asked))
        self.assertNotIn(dora.event_id, asked)

    async def test_nothing_is_sure_once_something_has_changed(self) -> None:
        """Redacted, or given a place: it has to be read again."""
        await self.enter()
        noted = Noted()
        branch = self.room.fork()
        secret = branch.set_state(TOPIC, {"topic": "secret"}, REMOTE)
        await self.receiver.add_outliers(self.room.room_id, [secret], noted)
        self.assertEqual(await self.numbers(noted), await self.stored(secret))
        await self.receive(self.room.redaction(REMOTE, secret))
        self.assertEqual(await self.numbers(noted), {})

        noted = Noted()
        dora = self.room.join("@dora:b.example")
        await self.receiver.add_outliers(self.room.room_id, [dora], noted)
        self.assertEqual(await self.receive(dora), [ACCEPTED])
        self.assertEqual(await self.numbers(noted), {})

    async def test_other_rooms(self) -> None:
        await self.enter()
        noted = Noted()
        await self.receiver.add_outliers(self.room.room_id, [self.room.join("@d:b.example")], noted)

        def read(txn: Transaction) -> Mapping[str, int]:
            return noted.numbers(txn, (rooms.nid(txn, self.room.room_id) or 0) + 1)

        self.assertEqual(await self.db.read(read), {})
