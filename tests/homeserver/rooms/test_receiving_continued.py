"""What is remembered of a room between transactions changes nothing of what comes of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

from homeserver.core.event import Event
from homeserver.rooms import continued
from homeserver.rooms.continued import MAX_KINDS, Continued
from homeserver.rooms.judged import Judged
from homeserver.rooms.newness import Newness
from homeserver.rooms.receiving import Receiving
from storage import rooms
from storage.events import ACCEPTED, REJECTED
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.homeserver.rooms.test_receiving_runs import _STORED, history
from tests.support.databases import on_each_database
from tests.support.events import BOB, CAROL


class NoKeeper:
    """Keeps nothing; with one, events are presumed to be new."""

    def begin(self) -> None:
        pass

    def keep(
        self, txn: Transaction, events: Sequence[Event], verdicts: Mapping[str, Judged]
    ) -> None:
        pass


class ContinuedCase(ReceivingCase):
    loads = 0

    async def send(self, *events: Event) -> list[int]:
        """Their statuses; `loads` says whether anything was read for them."""
        load = Receiving._load
        self.loads = 0

        def counted(receiving: Receiving, *args: Any) -> None:
            self.loads += 1
            load(receiving, *args)

        with patch.object(Receiving, "_load", counted):
            judged = await self.receiver.add(self.room.room_id, events, keeper=NoKeeper())
        return [judged[event.event_id].status for event in events]


@on_each_database
class ContinuedTest(ContinuedCase):
    async def outcome(self, version: str, seed: int, *, remembers: bool) -> list[Any]:
        """What is judged and stored of a history, in batches, some of them again."""
        self.db = await self.open()
        drawn = random.Random(seed)
        await self.enter(version)
        found: list[Any] = []
        events = history(drawn, self.room)
        events.append(self.room.redaction(self.room.creator, self.room.state["m.room.member", BOB]))
        events += [self.room.message(drawn.choice((BOB, CAROL)), f"end {n}") for n in range(6)]
        before: list[Event] = []
        while events:
            size = drawn.randint(1, 3)
            batch, events = events[:size], events[size:]
            if drawn.random() < 0.2:
                drawn.shuffle(batch)
            if drawn.random() < 0.1:
                batch += [event for event in before if event not in batch]
            if drawn.random() < 0.15:
                known = await self.receiver.add_outliers(self.room.room_id, batch[:1])
                found.append({name: judged.status for name, judged in known.items()})
            if before and drawn.random() < 0.1:
                known = await self.receiver.add_history(self.room.room_id, before[:1])
                found.append({name: judged.status for name, judged in known.items()})
            before = batch
            if not remembers:
                self.receiver._known.clear()
            with patch.object(Newness, "presumed", return_value=True):
                found.append(await self.send(*batch))
            self.taken += not self.loads
        found.append(self.resets)
        return found + await self.db.read(self.stored)

    def stored(self, txn: Transaction) -> list[Any]:
        return [txn.all(sql) for sql in _STORED]

    async def test_the_same_comes_of_it(self) -> None:
        for version, seeds in (("11", range(4)), ("12", range(2)), ("1", range(2))):
            taken = 0
            for seed in seeds:
                self.taken = 0
                expected = await self.outcome(version, seed, remembers=False)
                self.assertEqual(self.taken, 0)
                found = await self.outcome(version, seed, remembers=True)
                self.assertEqual(found, expected, (version, seed))
                taken += self.taken
            self.assertGreater(taken, 3, version)

    async def test_nothing_is_read_for_those_who_go_on(self) -> None:
        await self.enter("11")
        for number, (sender, loads) in enumerate(
            ((BOB, 1), (BOB, 0), (CAROL, 1), (BOB, 0), (CAROL, 0))
        ):
            said = [self.room.message(sender, f"{number} {part}") for part in range(3)]
            self.assertEqual(await self.send(*said), [ACCEPTED] * 3)
            self.assertEqual(self.loads, loads, number)

    async def test_another_state_is_judged_anew(self) -> None:
        await self.enter("11")
        for _ in range(2):
            self.assertEqual(await self.send(self.room.message(BOB, "one")), [ACCEPTED])
        self.assertEqual(self.loads, 0)
        levels = {**self.room.state["m.room.power_levels", ""].content, "events_default": 90}
        quiet = self.room.event("m.room.power_levels", self.room.creator, levels, "")
        self.assertEqual(await self.send(quiet), [ACCEPTED])
        refused = self.room.message(BOB, "two", add=False)
        self.assertEqual(await self.send(refused), [REJECTED])
        self.assertGreater(self.loads, 0)

    async def test_other_auth_events_are_judged_anew(self) -> None:
        await self.enter("11")
        for _ in range(2):
            self.assertEqual(await self.send(self.room.message(BOB, "one")), [ACCEPTED])
        create = [self.room.state["m.room.create", ""].event_id]
        odd = self.room.message(BOB, "two", auth=create, add=False)
        self.assertEqual(await self.send(odd), [REJECTED])
        self.assertGreater(self.loads, 0)

    async def test_a_change_of_contents_is_looked_for(self) -> None:
        await self.enter("11")
        for _ in range(2):
            self.assertEqual(await self.send(self.room.message(BOB, "one")), [ACCEPTED])
        self.assertEqual(self.loads, 0)

        def change(txn: Transaction) -> None:
            row = rooms.get(txn, self.room.room_id)
            assert row is not None
            rooms.contents_changed(txn, [row.room_nid])

        await self.db.write(change)
        self.assertEqual(await self.send(self.room.message(BOB, "two")), [ACCEPTED])
        self.assertEqual(self.loads, 1)

    async def test_what_was_sent_before_is_found(self) -> None:
        await self.enter("11")
        said = [self.room.message(BOB, str(number)) for number in range(3)]
        for event in said:
            self.assertEqual(await self.send(event), [ACCEPTED])
        more = self.room.message(BOB, "more")
        self.assertEqual(await self.send(said[1], said[2], more), [ACCEPTED] * 3)
        self.assertEqual(await self.send(*said, more), [ACCEPTED] * 4)

    async def test_a_branch_is_not_taken_for_the_head(self) -> None:
        await self.enter("11")
        for _ in range(2):
            self.assertEqual(await self.send(self.room.message(BOB, "one")), [ACCEPTED])
        aside = self.room.fork()
        mine, theirs = self.room.message(BOB, "mine"), aside.message(CAROL, "theirs")
        self.assertEqual(await self.send(mine), [ACCEPTED])
        self.assertEqual(await self.send(theirs), [ACCEPTED])

        def head(txn: Transaction) -> set[str]:
            row = rooms.get(txn, self.room.room_id)
            assert row is not None
            return set(row.extremities)

        self.assertEqual(await self.db.read(head), {mine.event_id, theirs.event_id})

    async def test_the_memory_is_bounded(self) -> None:
        await self.enter("11")
        self.assertEqual(await self.send(self.room.message(BOB, "one")), [ACCEPTED])
        for number in range(MAX_KINDS + 10):
            event = self.room.event(f"org.example.{number}", BOB, {})
            self.assertEqual(await self.send(event), [ACCEPTED])
        known = self.receiver._known.get(self.room.room_id)
        assert isinstance(known, Continued)
        self.assertEqual(len(known.allowed), MAX_KINDS)
        self.assertEqual(known.allowed[-1][0], f"org.example.{MAX_KINDS + 9}")

    def test_long_texts_are_counted(self) -> None:
        def size(event_type: str, event_id: str) -> int:
            kind = (event_type, BOB, "!room:b.example", (event_id,), b"root", b"root")
            known = Continued(1, 1, 1, b"root", (kind,) * MAX_KINDS)
            return continued.size("!room:b.example", known)

        astral = size("\U0001f600" * 255, "$id") - size("m", "$id")
        self.assertGreater(astral, MAX_KINDS * 4 * 250)
        self.assertGreater(size("m", "$" * 255) - size("m", "$"), MAX_KINDS * 250)
