"""What is noted of a room is asked once for a batch, and says what the tables say."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

from homeserver.core.event import Event
from storage import events, gaps, partial_rooms, room_notes, rooms
from storage.events import ACCEPTED
from storage.gaps import Gap
from storage.partial_rooms import PartialRoom
from storage.room_notes import RoomNotes
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.homeserver.rooms.test_receiving_runs import _STORED, history
from tests.support.databases import on_each_database
from tests.support.events import BOB

STORED = (*_STORED, "SELECT * FROM pending_redactions ORDER BY 1, 2")


@on_each_database
class NotesTest(ReceivingCase):
    async def outcome(self, version: str, seed: int, few: int) -> list[Any]:
        """What is judged and stored of a history that comes in disorder."""
        self.db = await self.open()
        drawn = random.Random(seed)
        await self.enter(version)
        said = history(drawn, self.room)
        for event in list(said):
            if drawn.random() < 0.2:
                said.append(self.room.redaction(BOB, event))
        found: list[Any] = []
        with patch.object(room_notes, "FEW", few):
            late: list[Event] = []
            while said:
                batch, said = said[:30], said[30:]
                drawn.shuffle(batch)
                late += [event for event in batch if drawn.random() < 0.1]
                await self.receiver.add(self.room.room_id, [e for e in batch if e not in late])
            # Redactions come before what they redact, and events after what names them.
            judged = await self.receiver.add(self.room.room_id, late)
            found += [judged[event.event_id] for event in late]
        return found + await self.db.read(lambda txn: [txn.all(sql) for sql in STORED])

    async def test_the_same_comes_of_it(self) -> None:
        """Whether it is at hand, or looked up by the events."""
        for version, seeds in (("11", range(4)), ("1", range(2))):
            for seed in seeds:
                expected = await self.outcome(version, seed, 0)
                for few in (3, 50):
                    self.assertEqual(await self.outcome(version, seed, few), expected)

    async def test_redactions_that_wait(self) -> None:
        """They are found at hand, and where too many wait."""
        for few in (50, 1):
            await self.enter("11" if few == 1 else "12")
            target = self.room.message(BOB, "secret")
            [first, second] = [
                self.room.redaction(BOB, name, prev=[self.join], add=False)
                for name in (target, "$" + "x" * 43)
            ]
            with patch.object(room_notes, "FEW", few):
                self.assertEqual(await self.receive(first, second), [ACCEPTED] * 2)
                self.assertEqual(await self.receive(target), [ACCEPTED])
            row = await self.db.read(events.get, target.event_id)
            assert row is not None
            self.assertEqual(row.redacted_by, first.event_id)

    async def test_what_is_read(self) -> None:
        await self.enter("11")

        def change(txn: Transaction) -> list[RoomNotes]:
            row = rooms.get(txn, self.room.room_id)
            assert row is not None
            here, elsewhere = row.room_nid, row.room_nid + 1
            found: list[RoomNotes] = []

            def noted() -> RoomNotes:
                read = room_notes.lock(txn, self.room.room_id)
                assert read is not None
                self.assertEqual(read[0], row)
                return read[1]

            txn.execute("DELETE FROM event_gaps")
            found.append(noted())
            partial_rooms.put(txn, PartialRoom(elsewhere, "$join", 1))
            gaps.add(txn, elsewhere, [Gap("$b", "$c", 1)])
            found.append(noted())
            partial_rooms.put(txn, PartialRoom(here, "$join", 1))
            gaps.add(txn, here, [Gap("$a", "$c", 1), Gap("$a", "$d", 1)])
            events.hold_redaction(txn, "$a", "$r")
            found.append(noted())
            many = [Gap(f"${n}", "$d", 1) for n in range(room_notes.FEW)]
            gaps.add(txn, here, many)
            for gap in many:
                events.hold_redaction(txn, gap.event_id, "$r")
            found.append(noted())
            self.assertEqual(gaps.still_open(txn, here, ["$a", "$b"]), {"$a"})
            self.assertIsNone(room_notes.lock(txn, "!other"))
            return found

        nothing = RoomNotes(False, frozenset(), (), 0)
        some = RoomNotes(True, frozenset({"$a"}), (("$a", "$r"),), 0)
        found = await self.db.write(change)
        self.assertEqual(found, [nothing, nothing, some, RoomNotes(True, None, None, 0)])
        self.assertEqual(some.noted_gaps(["$a", "$b"]), {"$a"})
        self.assertIsNone(found[-1].noted_gaps(["$a"]))
