"""Auth chains of stored events."""

from __future__ import annotations

import json

from storage import auth_chains, events
from storage.auth_chains import AuthChains
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.events import ALICE, BOB, RoomBuilder
from tests.support.stored import event_row


@on_each_database
class AuthChainsTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.chains = AuthChains()

    async def store(self, room: RoomBuilder, **columns: object) -> None:
        rows = [event_row(event, 1, **columns) for event in room.events.values()]
        await self.db.write(events.insert, rows)

    async def chain(self, *event_ids: str) -> set[str]:
        return await self.db.read(self.chains.chain, event_ids)

    async def test_all_levels(self) -> None:
        """Shows BF-6."""
        for version in ("1", "3", "11", "12"):
            room = RoomBuilder.started(version)
            bob = room.join(BOB)
            power = room.power_levels(ALICE)
            message = room.message(BOB)
            await self.store(room)
            wanted: set[str] = set()
            level = {message.event_id}
            while level:
                level = {name for one in level for name in room.events[one].auth_event_ids}
                wanted |= level
            # Also where the room ID stands for it, as in version 12.
            wanted.add(room.create.event_id)
            self.assertLess({bob.event_id, power.event_id}, wanted)
            for _ in ("from the tables", "from the cache"):
                self.assertEqual(await self.chain(message.event_id), wanted)
            texts = await self.db.read(auth_chains.texts_of, wanted)
            self.assertEqual(set(texts), wanted)
            self.assertEqual(next(iter(texts)), room.create.event_id)

    async def test_given_events_count_if_they_are_reached(self) -> None:
        room = RoomBuilder.started("11")
        bob, message = room.join(BOB), room.message(BOB)
        await self.store(room)
        self.assertIn(bob.event_id, await self.chain(message.event_id, bob.event_id))
        self.assertNotIn(message.event_id, await self.chain(message.event_id, bob.event_id))

    async def test_unknown_events_are_left_out(self) -> None:
        room = RoomBuilder.started("11")
        bob, message = room.join(BOB), room.message(BOB)
        del room.events[bob.event_id]
        await self.store(room)
        found = await self.chain(message.event_id, "$unknown")
        self.assertNotIn(bob.event_id, found)
        self.assertIn(room.create.event_id, found)

    async def test_rejected_events_are_left_out(self) -> None:
        """Shows RECV-3."""
        room = RoomBuilder.started("11")
        message = room.message(ALICE)
        await self.store(room, status=events.REJECTED)
        self.assertEqual(await self.chain(message.event_id), set())
        self.assertEqual(await self.db.read(auth_chains.texts_of, room.events), {})

    async def test_texts_that_were_read_already(self) -> None:
        """They are not read again."""
        room = RoomBuilder.started("11")
        message = room.message(ALICE)
        texts = {event.event_id: event.to_json().decode() for event in room.events.values()}
        edges = await self.db.read(self.chains.edges, [message.event_id], texts=texts)
        self.assertEqual(edges, {message.event_id: message.auth_event_ids})

    async def test_a_chain_of_ten_thousand(self) -> None:
        """Nothing recurses, and a cycle ends."""
        room = RoomBuilder("11")
        first = room.create
        rows, auth = [], [first.event_id]
        for number in range(10_000):
            text = json.dumps({"auth_events": auth[-1:]})
            name = f"$deep{number}"
            rows.append(event_row(first, 1, event_id=name, json=text, depth=number))
            auth.append(name)
        rows.append(event_row(first, 1, json=json.dumps({"auth_events": auth[-1:]})))
        await self.db.write(events.insert, rows)
        self.assertEqual(await self.chain(auth[-1]), set(auth))
