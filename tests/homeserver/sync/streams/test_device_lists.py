"""Whose devices changed, whose are new and whose are no concern any more, on both databases."""

from __future__ import annotations

from homeserver.core.ids import RoomID, UserID
from homeserver.encryption.device_lists import device_changed
from homeserver.sync.streams import device_lists as stream
from homeserver.web.request import Requester
from storage import clock
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.rooms import ALICE, BOB, CAROL, SERVER_NAME, RoomServices

DAVE = UserID(f"@dave:{SERVER_NAME}")


@on_each_database
class DeviceListsStreamTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.rooms = RoomServices(self.db)

    async def change(self, *user_ids: str) -> None:
        for user_id in user_ids:
            await self.db.write(device_changed, user_id, "DEVICE")

    async def now(self) -> int:
        return await self.db.read(clock.position)

    async def join(self, user_id: UserID, room_id: RoomID) -> None:
        await self.rooms.members.join(Requester(user_id), room_id)

    async def leave(self, user_id: UserID, room_id: RoomID) -> None:
        await self.rooms.members.leave(Requester(user_id), room_id, None)

    async def changes(self, user_id: str, since: int) -> tuple[list[str], list[str]]:
        def read(txn: Transaction) -> tuple[list[str], list[str]]:
            return stream.changes(txn, user_id, since, clock.position(txn))

        return await self.db.read(read)

    async def test_changes_of_those_around(self) -> None:
        """Shows SYN-22, SYN-23."""
        await self.rooms.create(ALICE, joined=[BOB])
        await self.rooms.create(CAROL)
        since = await self.now()
        self.assertEqual(await self.changes(ALICE, since), ([], []))
        await self.change(ALICE, BOB, CAROL, BOB)
        self.assertEqual(await self.changes(ALICE, since), ([ALICE, BOB], []))
        self.assertEqual(await self.changes(BOB, since), ([ALICE, BOB], []))
        self.assertEqual(await self.changes(CAROL, since), ([CAROL], []))
        self.assertEqual(await self.changes(ALICE, await self.now()), ([], []))

    async def test_both_ends_of_the_span(self) -> None:
        """The change at `since` was told before, the one at `now` is told."""
        await self.rooms.create(ALICE, joined=[BOB])
        await self.change(BOB)
        since = await self.now()
        await self.change(ALICE)
        until = await self.now()
        await self.change(BOB)

        def read(txn: Transaction, upto: int) -> list[str]:
            return stream.changed_users(txn, since, upto)

        self.assertEqual(await self.db.read(read, until), [ALICE])
        self.assertEqual(await self.db.read(read, await self.now()), [ALICE, BOB])

    async def test_one_change_for_one_transaction(self) -> None:
        """Many devices at once are one change of the list."""

        def many(txn: Transaction) -> None:
            for user_id in (ALICE, BOB):
                for number in range(3):
                    device_changed(txn, user_id, f"D{number}")

        def rows(txn: Transaction) -> list[str]:
            return [row[0] for row in txn.all("SELECT user_id FROM device_list_changes")]

        await self.db.write(many)
        self.assertEqual(sorted(await self.db.read(rows)), [ALICE, BOB])
        await self.db.write(many)
        self.assertEqual(len(await self.db.read(rows)), 4)

    async def test_somebody_joins(self) -> None:
        """Shows SYN-22."""
        room_id = await self.rooms.create(ALICE, joined=[BOB])
        since = await self.now()
        await self.join(CAROL, room_id)
        self.assertEqual(await self.changes(ALICE, since), ([CAROL], []))
        self.assertEqual(await self.changes(BOB, since), ([CAROL], []))
        self.assertEqual(await self.changes(CAROL, since), ([ALICE, BOB], []))

    async def test_an_invite_shares_nothing(self) -> None:
        """Shows SYN-22."""
        room_id = await self.rooms.create(ALICE, preset="private_chat")
        since = await self.now()
        await self.rooms.members.invite(Requester(ALICE), room_id, BOB)
        await self.change(ALICE, BOB)
        self.assertEqual(await self.changes(ALICE, since), ([ALICE], []))
        self.assertEqual(await self.changes(BOB, since), ([BOB], []))

    async def test_somebody_leaves(self) -> None:
        """Shows SYN-22."""
        room_id = await self.rooms.create(ALICE, joined=[BOB, CAROL])
        since = await self.now()
        await self.leave(CAROL, room_id)
        await self.change(CAROL)
        self.assertEqual(await self.changes(ALICE, since), ([], [CAROL]))
        self.assertEqual(await self.changes(CAROL, since), ([CAROL], [ALICE, BOB]))
        self.assertEqual(await self.changes(ALICE, await self.now()), ([], []))

    async def test_another_shared_room(self) -> None:
        """Entering or leaving one of several shared rooms changes nothing. Shows SYN-22."""
        first = await self.rooms.create(ALICE, joined=[BOB])
        since = await self.now()
        second = await self.rooms.create(BOB, joined=[ALICE])
        self.assertEqual(await self.changes(ALICE, since), ([], []))
        self.assertEqual(await self.changes(BOB, since), ([], []))
        await self.leave(ALICE, first)
        self.assertEqual(await self.changes(ALICE, since), ([], []))
        self.assertEqual(await self.changes(BOB, since), ([], []))
        await self.leave(BOB, second)
        self.assertEqual(await self.changes(ALICE, since), ([], [BOB]))
        self.assertEqual(await self.changes(BOB, since), ([], [ALICE]))

    async def test_there_and_back(self) -> None:
        """Who left and came back shares as before, who came and left as little as before."""
        room_id = await self.rooms.create(ALICE, joined=[BOB])
        since = await self.now()
        await self.leave(BOB, room_id)
        between = await self.now()
        await self.join(CAROL, room_id)
        await self.join(BOB, room_id)
        await self.leave(CAROL, room_id)
        self.assertEqual(await self.changes(ALICE, since), ([], []))
        self.assertEqual(await self.changes(BOB, since), ([], []))
        self.assertEqual(await self.changes(CAROL, since), ([], []))
        self.assertEqual(await self.changes(ALICE, between), ([BOB], []))
        self.assertEqual(await self.changes(BOB, between), ([ALICE], []))

    async def test_a_change_while_apart_is_told(self) -> None:
        """Devices changed between a leave and a new join."""
        room_id = await self.rooms.create(ALICE, joined=[BOB])
        since = await self.now()
        await self.leave(BOB, room_id)
        await self.change(BOB)
        await self.join(BOB, room_id)
        self.assertEqual(await self.changes(ALICE, since), ([BOB], []))

    async def test_a_room_that_was_left_tells_nothing_more(self) -> None:
        """Who joins or leaves after the user left is no business of theirs."""
        room_id = await self.rooms.create(ALICE, joined=[BOB, CAROL])
        since = await self.now()
        await self.leave(BOB, room_id)
        await self.join(DAVE, room_id)
        await self.leave(CAROL, room_id)
        self.assertEqual(await self.changes(BOB, since), ([], [ALICE, CAROL]))
        self.assertEqual(await self.changes(ALICE, since), ([DAVE], [BOB, CAROL]))
        left = await self.now()
        await self.leave(DAVE, room_id)
        await self.change(ALICE, DAVE)
        self.assertEqual(await self.changes(BOB, left), ([], []))

    async def test_new_names_are_no_joins(self) -> None:
        """A member event that changes a name changes no device list."""
        room_id = await self.rooms.create(ALICE, joined=[BOB])
        since = await self.now()
        content = {"membership": "join", "displayname": "Bobby"}
        await self.rooms.set_state(room_id, BOB, "m.room.member", content, BOB)
        self.assertEqual(await self.changes(ALICE, since), ([], []))

    async def test_many_rooms_at_once(self) -> None:
        """Some rooms joined, some left, some the same."""
        same = await self.rooms.create(ALICE, joined=[BOB])
        gone = await self.rooms.create(CAROL, joined=[ALICE, BOB])
        new = await self.rooms.create(DAVE, joined=[BOB])
        since = await self.now()
        await self.leave(ALICE, gone)
        await self.join(ALICE, new)
        self.assertEqual(await self.changes(ALICE, since), ([DAVE], [CAROL]))
        self.assertEqual(await self.changes(CAROL, since), ([], [ALICE]))
        await self.join(CAROL, new)
        await self.leave(BOB, same)
        self.assertEqual(await self.changes(ALICE, since), ([DAVE], []))
        self.assertEqual(await self.changes(CAROL, since), ([DAVE], []))
