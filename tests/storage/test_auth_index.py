"""Which events are the auth events of others, by number."""

from __future__ import annotations

from typing import Any

from storage import events
from storage.auth_index import AuthIndex
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.events import ALICE, BOB, RoomBuilder
from tests.support.stored import event_row

ROOM, OTHER = 7, 8


@on_each_database
class AuthIndexTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.index = AuthIndex()

    def room(self, version: str) -> tuple[RoomBuilder, dict[str, int]]:
        room = RoomBuilder.started(version, members=[BOB])
        return room, {name: number for number, name in enumerate(room.events, 1)}

    def insert(self, txn: Transaction, room: RoomBuilder, numbers: dict[str, int]) -> None:
        rows = [
            event_row(event, ROOM, event_nid=numbers[name]) for name, event in room.events.items()
        ]
        events.insert(txn, rows)

    @staticmethod
    def edges(
        txn: Transaction, index: AuthIndex, room_nid: int, asked: list[int], *at_hand: Any
    ) -> dict[int, tuple[int, ...]]:
        room = index.of_room(txn, room_nid, *at_hand)
        found = room.of_each(asked)
        together = {auth for auths in found.values() for auth in auths}
        assert room.of_all(asked) == together
        return found

    async def test_edges(self) -> None:
        """They are what the events name, in all formats; of the room only, and read once."""
        for version in ("1", "3", "12"):
            self.db = await self.open()
            room, numbers = self.room(version)
            await self.db.write(self.insert, room, numbers)
            expected = {
                numbers[name]: tuple(numbers[auth_id] for auth_id in event.auth_event_ids)
                for name, event in room.events.items()
            }
            index = AuthIndex()
            asked = list(expected)
            self.assertEqual(await self.db.write(self.edges, index, ROOM, [*asked, 999]), expected)
            self.assertEqual(await self.db.read(self.edges, AuthIndex(), OTHER, asked), {})

            def again(
                txn: Transaction, index: AuthIndex = index, asked: list[int] = asked
            ) -> tuple[dict[int, tuple[int, ...]], int]:
                return self.edges(txn, index, ROOM, asked), txn.statements

            self.assertEqual(await self.db.read(again), (expected, 0))

    async def test_events_at_hand_are_not_read(self) -> None:
        """Only numbers are looked up of what they name; the answer is the same, and is kept."""
        room, numbers = self.room("11")
        await self.db.write(self.insert, room, numbers)
        events_at_hand = {numbers[name]: event for name, event in room.events.items()}
        asked = list(events_at_hand)
        expected = await self.db.read(self.edges, AuthIndex(), ROOM, asked)
        for at_hand, statements in ((events_at_hand.get, 0), ({asked[-1]: None}.get, 1)):
            index = AuthIndex()

            def find(
                txn: Transaction, index: AuthIndex = index, at_hand: Any = at_hand
            ) -> tuple[dict[int, tuple[int, ...]], int]:
                return self.edges(txn, index, ROOM, asked, at_hand), txn.statements

            self.assertEqual(await self.db.read(find), (expected, statements))
            found = await self.db.read(self.edges, index, ROOM, asked)
            self.assertEqual(found, expected)
        last = events_at_hand[asked[-1]]
        named = await self.db.read(self.edges, AuthIndex(), ROOM, asked[-1:], {asked[-1]: last}.get)
        self.assertEqual(named, {asked[-1]: expected[asked[-1]]})

    async def test_what_was_rolled_back_is_not_remembered(self) -> None:
        """Its numbers may be given to other events."""
        room, numbers = self.room("12")
        wrong = {name: len(numbers) + 1 - number for name, number in numbers.items()}

        def fails(txn: Transaction) -> None:
            self.insert(txn, room, wrong)
            self.edges(txn, self.index, ROOM, list(wrong.values()))
            raise KeyError

        with self.assertRaises(KeyError):
            await self.db.write(fails)
        await self.db.write(self.insert, room, numbers)
        found = await self.db.read(self.edges, self.index, ROOM, list(numbers.values()))
        join = room.state["m.room.member", ALICE]
        self.assertEqual(found[numbers[join.event_id]], ())
        bob = room.state["m.room.member", BOB]
        self.assertEqual(
            found[numbers[bob.event_id]], tuple(numbers[i] for i in bob.auth_event_ids)
        )

    async def test_what_is_not_stored_yet(self) -> None:
        """An auth event that comes later is found then."""
        room, numbers = self.room("11")
        bob = room.state["m.room.member", BOB]
        rules = room.state["m.room.join_rules", ""]
        later = {rules.event_id: room.events.pop(rules.event_id)}
        await self.db.write(self.insert, room, numbers)
        number = numbers[bob.event_id]
        found = await self.db.write(self.edges, self.index, ROOM, [number])
        self.assertNotIn(numbers[rules.event_id], found[number])
        room.events = later
        await self.db.write(self.insert, room, numbers)
        found = await self.db.write(self.edges, self.index, ROOM, [number])
        self.assertEqual(found[number], tuple(numbers[i] for i in bob.auth_event_ids))
