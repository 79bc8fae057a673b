"""Finding what changed for those who may have missed hints, on both databases."""

from __future__ import annotations

from collections.abc import Callable

from storage import account_data, clock, device_lists, news, receipts, to_device
from storage.news import News
from storage.receipts import Receipt
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.rooms import ALICE, BOB, CAROL, RoomServices

USERS = [ALICE, BOB, CAROL]


@on_each_database
class NewsTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        services = RoomServices(self.db)
        one, other = await services.create(), await services.create()
        self.services, self.one, self.other = services, one, other
        self.nids = [(await services.room(room_id)).room_nid for room_id in (one, other)]
        self.start = await self.db.read(clock.position)

    async def news(self) -> News:
        return await self.db.read(news.since, self.start, self.nids, USERS)

    async def put(self, write: Callable[[Transaction, int], object]) -> None:
        await self.db.write(lambda txn: write(txn, txn.next_pos()))

    async def test_nothing(self) -> None:
        """Shows SYN-31."""
        self.assertEqual(await self.news(), News(set(), set()))
        self.assertEqual(await self.db.read(news.since, 0, [], []), News(set(), set()))

    async def test_events(self) -> None:
        """Shows SYN-31."""
        await self.services.say(self.one)
        self.assertEqual(await self.news(), News({self.nids[0]}, set()))

    async def test_memberships(self) -> None:
        """Shows SYN-31."""
        content = {"membership": "invite"}
        await self.services.set_state(self.one, ALICE, "m.room.member", content, BOB)
        self.assertEqual(await self.news(), News({self.nids[0]}, {BOB}))

    async def test_receipts(self) -> None:
        """Those of others concern the room, private ones their user. Shows SYN-31."""
        await self.put(
            lambda txn, pos: receipts.put(
                txn, [Receipt(self.nids[1], BOB, "m.read.private", "", "$x", 1, 1, pos)]
            )
        )
        self.assertEqual(await self.news(), News({self.nids[1]}, {BOB}))

    async def test_what_users_keep(self) -> None:
        """Shows SYN-31."""
        await self.put(lambda txn, pos: account_data.put(txn, CAROL, "", "org.test", "{}", pos))
        self.assertEqual(await self.news(), News(set(), {CAROL}))
        await self.put(
            lambda txn, pos: txn.execute(
                "INSERT INTO push_rules (user_id, rules, exceptional, pos) VALUES (?, ?, ?, ?)",
                (BOB, "{}", False, pos),
            )
        )
        self.assertEqual((await self.news()).users, {BOB, CAROL})

    async def test_devices(self) -> None:
        """A device list concerns the rooms of its user. Shows SYN-31."""
        await self.db.write(device_lists.record, ALICE)
        self.assertEqual(await self.news(), News(set(self.nids), {ALICE}))
        await self.put(
            lambda txn, pos: to_device.add(txn, [to_device.Message(BOB, "ONE", pos, 1, "{}")])
        )
        self.assertEqual((await self.news()).users, {ALICE, BOB})
