"""Finding what is new for anybody, on both databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

import storage
from storage import account_data, clock, device_lists, receipts, recent_news, to_device
from storage.receipts import Receipt
from storage.recent_news import RecentNews
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.rooms import ALICE, BOB, CAROL, RoomServices

NOT_TOLD = frozenset(
    {
        "appservice_streams",
        "clock",
        "destination_events",
        "destination_shards",
        "destinations",
        "device_updates",
        "erased_users",
        "invalidations",
        "log_readers",
        "memberships",
        "outgoing_to_device",
        "profile_changes",
        "push_log",
        "push_queue",
        "thread_subscriptions",
        "timeline_breaks",
    }
)
"""Tables with positions of which `/sync` tells nothing by them, or only to clients that are never
answered from memory; breaks of timelines are looked up room by room."""


class TablesTest(TestCase):
    def test_every_table_with_positions_is_thought_of(self) -> None:
        """Whoever adds a table whose rows `/sync` tells by their positions names it in
        `storage.recent_news`."""
        schema = (Path(storage.__file__).parent / "schema" / "current.sql").read_text()
        tables = re.findall(r"CREATE TABLE (\w+) \((.*?)\n?\);?\n", schema, re.DOTALL)
        with_positions = {name for name, columns in tables if re.search(r"\bpos BIGINT", columns)}
        self.assertGreater(len(with_positions), 20)
        read = {name for name in with_positions if re.search(rf"\b{name}\b", recent_news._NEWS)}
        self.assertEqual(with_positions - read - {"clock"}, NOT_TOLD - {"clock"})


@on_each_database
class RecentNewsTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        services = RoomServices(self.db)
        self.services, self.room_id = services, await services.create()
        self.nid = (await services.room(self.room_id)).room_nid
        self.start = await self.db.read(clock.position)

    async def news(self) -> RecentNews:
        now, found = await self.db.read(recent_news.since, self.start)
        assert found is not None
        self.assertEqual(found.now, now)
        self.assertEqual(now, await self.db.read(clock.position))
        return found

    async def put(self, write: Callable[[Transaction, int], object]) -> int:
        def work(txn: Transaction) -> int:
            pos = txn.next_pos()
            write(txn, pos)
            return pos

        return await self.db.write(work)

    def only(self, found: RecentNews, **expected: Any) -> None:
        nothing: dict[str, Any] = {name: {} for name in RecentNews._fields if name != "now"}
        self.assertEqual(found._asdict() | {"now": 0}, {"now": 0} | nothing | expected)

    async def test_nothing(self) -> None:
        self.only(await self.news())

    async def test_a_message(self) -> None:
        await self.services.say(self.room_id)
        found = await self.news()
        self.only(found, events={self.nid: found.now})
        rows = await self.db.read(recent_news.events_of, [self.nid], self.start)
        self.assertEqual([row.pos for row in rows], [found.now])

    async def receipt(self, kind: str, user_id: str) -> int:
        return await self.put(
            lambda txn, pos: receipts.put(
                txn, [Receipt(self.nid, user_id, kind, "", "$x", 1, 1, pos)]
            )
        )

    async def test_receipts(self) -> None:
        """Private ones concern their users alone."""
        public = await self.receipt("m.read", BOB)
        private = await self.receipt("m.read.private", CAROL)
        users = {BOB: public, CAROL: private}
        self.only(await self.news(), receipts={self.nid: public}, users=users)

    async def test_what_concerns_one_user(self) -> None:
        first = await self.put(lambda txn, pos: account_data.put(txn, ALICE, "", "a.b", "{}", pos))
        second = await self.put(
            lambda txn, pos: to_device.add(txn, [to_device.Message(BOB, "ONE", pos, 1, "{}")])
        )
        self.only(await self.news(), users={ALICE: first, BOB: second})

    async def test_memberships_and_other_state(self) -> None:
        content = {"membership": "invite"}
        await self.services.set_state(self.room_id, ALICE, "m.room.member", content, BOB)
        found = await self.news()
        self.only(
            found,
            events={self.nid: found.now},
            other={self.nid: found.now},
            users=dict.fromkeys(found.users, found.now),
        )
        self.assertIn(BOB, found.users)
        await self.services.set_state(self.room_id, ALICE, "m.room.topic", {"topic": "Tea"}, "")
        found = await self.news()
        self.assertEqual(found.other, {self.nid: found.now})

    async def test_devices(self) -> None:
        await self.db.write(device_lists.record, ALICE)
        found = await self.news()
        self.only(found, users={ALICE: found.now}, device_rooms={self.nid: found.now})

    async def test_too_much(self) -> None:
        self.patch(recent_news, "LIMIT", 2)
        for _ in range(3):
            await self.services.say(self.room_id)
        now, found = await self.db.read(recent_news.since, self.start)
        self.assertIsNone(found)
        self.assertEqual(now, await self.db.read(clock.position))
