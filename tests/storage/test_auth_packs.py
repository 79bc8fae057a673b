"""What many events rest on, in one row."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from storage import auth_index, auth_packs, events, room_removal
from storage.auth_index import AuthIndex
from storage.auth_packs import pack, unpack
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.events import BOB, CAROL, RoomBuilder
from tests.support.stored import event_row

ROOM, OTHER = 7, 8
NUMBERS = st.integers(-(2**63), 2**63 - 1)
EDGES = st.dictionaries(NUMBERS, st.lists(NUMBERS, max_size=12).map(tuple), max_size=40)
Edges = dict[int, tuple[int, ...]]


class Bodies(TestCase):
    @given(EDGES)
    def test_what_was_put_in(self, edges: Edges) -> None:
        self.assertEqual(dict(unpack(pack(edges))), edges)

    def test_equal_lists_are_kept_once(self) -> None:
        found = dict(unpack(pack({1: (8, 9), 2: (8, 9), 3: (9, 8)})))
        self.assertIs(found[1], found[2])
        self.assertIsNot(found[1], found[3])

    def test_what_is_cut_off(self) -> None:
        with self.assertRaises(struct.error):
            unpack(pack({1: (2, 3)})[:-1])


@on_each_database
class Rows(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.patch(auth_index, "_MANY", 3)

    async def stored(self, room: RoomBuilder) -> Edges:
        """Insert a room; what each of its events names, by numbers."""
        self.numbers = {name: number for number, name in enumerate(room.events, 1)}
        rows = [
            event_row(event, ROOM, event_nid=self.numbers[name])
            for name, event in room.events.items()
        ]
        await self.db.write(events.insert, rows)
        return {
            self.numbers[name]: tuple(self.numbers[auth_id] for auth_id in event.auth_event_ids)
            for name, event in room.events.items()
        }

    @staticmethod
    def ask(txn: Transaction, numbers: list[int], room_nid: int = ROOM) -> Edges:
        """As after a start, in a transaction that may write."""
        room = AuthIndex().of_room(txn, room_nid)
        found = room.of_each(numbers)
        room.save()
        return found

    async def test_parts(self) -> None:
        """Any number of events, in rows of a bounded size; of each room its own."""
        self.patch(auth_packs, "_PART", 4)
        edges = {number: (number - 1,) for number in range(1, 11)}
        await self.db.write(auth_packs.save, ROOM, edges)
        await self.db.write(auth_packs.save, OTHER, {50: ()})
        self.assertEqual(await self.db.read(auth_packs.load, ROOM), edges)
        self.assertEqual(await self.db.read(auth_packs.load, OTHER), {50: ()})
        # As if another process had been there first.
        await self.db.write(auth_packs.save, ROOM, {1: (0,)})
        self.assertEqual(await self.db.read(auth_packs.load, ROOM), edges)

    async def test_read_from_the_events_once(self) -> None:
        """The answers are those of the events, which need not be there for the second."""
        for version in ("1", "11", "12"):
            self.db = await self.open()
            edges = await self.stored(RoomBuilder.started(version, members=[BOB]))
            self.assertEqual(await self.db.write(self.ask, list(edges)), edges)
            await self.db.write(lambda txn: txn.execute("DELETE FROM events"))
            self.assertEqual(await self.db.write(self.ask, list(edges)), edges)
            self.assertEqual(await self.db.write(self.ask, list(edges), OTHER), {})

    async def test_few_are_read_from_the_events(self) -> None:
        """For these no row is read or written."""
        edges = await self.stored(RoomBuilder.started("11", members=[BOB]))
        await self.db.write(self.ask, [1, 2])
        self.assertEqual(await self.db.read(auth_packs.load, ROOM), {})
        await self.db.write(auth_packs.save, ROOM, dict.fromkeys(edges, ()))
        self.assertEqual(await self.db.write(self.ask, [1, 2]), {n: edges[n] for n in (1, 2)})

    async def test_what_comes_later(self) -> None:
        """It is read from the events, and stored apart."""
        edges = await self.stored(RoomBuilder.started("11", members=[BOB, CAROL]))
        first = {number: edges[number] for number in list(edges)[:3]}
        self.assertEqual(await self.db.write(self.ask, list(first)), first)
        self.assertEqual(await self.db.read(auth_packs.load, ROOM), first)
        self.assertEqual(await self.db.write(self.ask, list(edges)), edges)
        self.assertEqual(await self.db.read(auth_packs.load, ROOM), edges)
        rows = await self.db.read(lambda txn: txn.all("SELECT first_nid FROM auth_packs"))
        self.assertEqual(sorted(rows), [(1,), (4,)])

    async def test_what_is_not_known_whole(self) -> None:
        """Of what names an event that is not stored nothing is put into a row."""
        room = RoomBuilder.started("11", members=[BOB])
        rules = room.state["m.room.join_rules", ""].event_id
        del room.events[rules]
        rows = [event_row(event, ROOM, event_nid=n) for n, event in enumerate(room.events.values())]
        await self.db.write(events.insert, rows)
        found = await self.db.write(self.ask, list(range(len(rows))))
        kept = await self.db.read(auth_packs.load, ROOM)
        for number, event in enumerate(room.events.values()):
            self.assertEqual(number in kept, rules not in event.auth_event_ids)
            self.assertIn(number, found)
        self.assertLess(len(kept), len(found))

    async def test_go_with_their_room(self) -> None:
        (table,) = [table for table in room_removal.BY_NUMBER if table.name == "auth_packs"]
        for room in (ROOM, OTHER):
            await self.db.write(auth_packs.save, room, {5: ()})
        await self.db.write(room_removal.delete_some, table, "room_nid", ROOM, 10)
        self.assertEqual(await self.db.read(auth_packs.load, ROOM), {})
        self.assertEqual(await self.db.read(auth_packs.load, OTHER), {5: ()})
