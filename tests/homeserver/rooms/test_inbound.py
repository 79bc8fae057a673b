"""Events of transactions: what is added at once, what waits, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.core.types import JsonObject
from homeserver.rooms import inbound as module
from homeserver.rooms import pdu_names
from homeserver.rooms.inbound import Answers
from storage import rooms
from storage.errors import DatabaseUnavailable
from storage.received import Bound, Bounds
from storage.transaction import Transaction
from tests.homeserver.rooms.waiting import ORIGIN, SERVER, Verdict, WaitingCase
from tests.support.databases import on_each_database
from tests.support.events import RoomBuilder
from tests.support.federation import eventually


class FakeKeeping:
    """`answers` are those that were committed."""

    def __init__(self) -> None:
        self.txn_id = "t"
        self.may_be_known = False
        self.begun = self.stored = 0
        self.answers: Answers | None = None
        self._last: Answers | None = None

    async def look_up(self) -> bool:
        return False

    def answered(self, answer: str | None) -> bool:
        return answer is not None

    def begin(self) -> None:
        self.begun += 1
        self._last = None

    def store(self, txn: Transaction, answers: Answers) -> None:
        self.stored += 1
        self._last = answers

    def committed(self) -> None:
        assert self._last is not None
        self.answers = self._last


@on_each_database
class InboundTest(WaitingCase):
    async def receive(self, *pdus: Any) -> dict[str, JsonObject]:
        return await self.inbound.receive(ORIGIN, pdus)

    def begin_receiving(self, *pdus: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.receive(*pdus))

    async def test_rooms_are_answered_with_their_verdicts(self) -> None:
        """Shows TXN-6, RECV-2."""
        good, rejected, misplaced, soft = (self.message(self.one, str(n)) for n in range(4))
        self.script.verdicts[rejected.event_id] = Verdict(2, "rejected")
        self.script.verdicts[misplaced.event_id] = Verdict(3, "misplaced")
        self.script.verdicts[soft.event_id] = Verdict(1, "soft-failed")
        other = self.message(self.two)
        events = [good, rejected, misplaced, soft, other]
        self.assertEqual(
            await self.receive(*(event.pdu for event in events)),
            {
                good.event_id: {},
                rejected.event_id: {"error": "rejected"},
                misplaced.event_id: {"error": "misplaced"},
                soft.event_id: {},
                other.event_id: {},
            },
        )
        self.assertEqual(await self.waiting(), {})
        # One bulk check for the sender's own events, one for those of others.
        self.assertEqual((self.checker.calls, len(self.script.calls)), (2, 2))

    async def test_the_answer_is_stored_with_the_events(self) -> None:
        """Where all of it is known then, and only what was committed counts."""
        good, late = self.message(self.one), self.message(self.one, "late")
        keeping = FakeKeeping()
        answers = await self.inbound.receive(ORIGIN, [good.pdu], keeping)
        self.assertEqual((keeping.answers, keeping.begun), (answers, 2))
        # Events of two rooms are added apart.
        keeping = FakeKeeping()
        pdus = [self.message(self.one).pdu, self.message(self.two).pdu]
        await self.inbound.receive(ORIGIN, pdus, keeping)
        self.assertEqual((keeping.answers, keeping.begun), (None, 0))
        # It was not committed.
        failing = self.message(self.one)
        self.script.fails.add(failing.event_id)
        await self.inbound.receive(ORIGIN, [failing.pdu], keeping)
        self.assertEqual((keeping.answers, keeping.begun), (None, 2))
        await self.db.write(lambda txn: txn.execute("DELETE FROM staged_pdus"))
        # Nobody knows yet whether it will be.
        self.script.hold[self.one.room_id] = Deferred()
        keeping, slow = FakeKeeping(), self.message(self.one)
        waiting = Deferred.fromCoroutine(self.inbound.receive(ORIGIN, [slow.pdu], keeping))
        await eventually(lambda: len(self.script.calls) == 5)
        self.clock.advance(module.PATIENCE_S + 1)
        self.assertEqual(await waiting, {slow.event_id: {}})
        self.script.hold.pop(self.one.room_id).callback(None)
        self.assertEqual((keeping.answers, keeping.begun), (None, 2))
        await self.db.write(lambda txn: txn.execute("DELETE FROM staged_pdus"))
        # What lacks something is stored elsewhere.
        self.script.verdicts[late.event_id] = Verdict(-1, "lacking")
        await self.inbound.receive(ORIGIN, [late.pdu], keeping)
        self.assertEqual((keeping.answers, keeping.stored), (None, 2))

    async def become_familiar(self) -> None:
        """The room was found, and is presumed to be so."""
        await self.db.write(lambda txn: self.change_room(txn, state_root=b"root"))
        await self.receive(self.message(self.one, "first").pdu)
        await self.receive(self.message(self.one, "second").pdu)
        self.assertIsNone(self.script.presumed[-2])
        self.assertIsNotNone(self.script.presumed[-1])

    def change_room(self, txn: Transaction, **fields: Any) -> None:
        row = rooms.get(txn, self.one.room_id)
        assert row is not None
        rooms.put(txn, [row._replace(**fields)])

    def leave_room(self, txn: Transaction) -> None:
        txn.execute("UPDATE memberships SET membership = 'leave' WHERE room_nid = 1")

    async def test_a_room_that_is_not_as_presumed(self) -> None:
        """It is looked up, and all is as if nothing had been presumed."""
        await self.become_familiar()
        self.script.is_strange = True
        event = self.message(self.one, "third")
        self.assertEqual(await self.receive(event.pdu), {event.event_id: {}})
        self.assertIsNone(self.script.presumed[-1])
        self.assertEqual(self.script.calls[-1][2], [event.event_id])
        await self.db.write(self.leave_room)
        event = self.message(self.one, "fourth")
        self.assertIn("not in the room", (await self.receive(event.pdu))[event.event_id]["error"])

    async def slow(self) -> tuple[Any, Deferred[Any]]:
        """An event for the room, which is presumed to be open, that is not added in time."""
        self.script.hold[self.one.room_id] = Deferred()
        event, before = self.message(self.one, "slow"), len(self.script.calls)
        receiving = self.begin_receiving(event.pdu)
        await eventually(lambda: len(self.script.calls) > before)
        self.assertIsNotNone(self.script.presumed[-1])
        return event, receiving

    async def test_a_slow_room_that_is_presumed_to_be_open(self) -> None:
        """It is looked up before events wait: then nobody asks whether they may come."""
        await self.become_familiar()
        event, receiving = await self.slow()
        self.clock.advance(module.PATIENCE_S + 1)
        self.assertEqual(await receiving, {event.event_id: {}})
        self.assertEqual(await self.waiting(), {event.event_id: 0})
        self.script.hold.pop(self.one.room_id).callback(None)

    async def test_a_slow_room_that_was_left(self) -> None:
        await self.become_familiar()
        event, receiving = await self.slow()
        await self.db.write(self.leave_room)
        self.clock.advance(module.PATIENCE_S + 1)
        self.assertIn("not in the room", (await receiving)[event.event_id]["error"])
        self.assertEqual(await self.waiting(), {})
        self.script.hold.pop(self.one.room_id).callback(None)

    async def test_what_lacks_something_waits(self) -> None:
        event = self.message(self.one)
        self.script.verdicts[event.event_id] = Verdict(-1)
        self.assertEqual(await self.receive(event.pdu), {event.event_id: {}})
        self.assertEqual(await self.waiting(), {event.event_id: 0})

    async def test_a_room_with_a_backlog_keeps_the_order(self) -> None:
        first, second = self.message(self.one, "1"), self.message(self.one, "2")
        await self.backlog.stage(1, ORIGIN, [first])
        self.assertEqual(await self.receive(second.pdu), {second.event_id: {}})
        self.assertEqual(self.script.calls, [])
        self.assertEqual(set(await self.waiting()), {first.event_id, second.event_id})
        # Other servers' events need not wait for that.
        third = self.message(self.one, "3")
        await self.inbound.receive("z.example", [third.pdu])
        self.assertEqual(self.script.calls, [("", self.one.room_id, [third.event_id])])

    async def test_events_that_failed_do_not_hold_up_the_room(self) -> None:
        stuck, good = self.message(self.one, "1"), self.message(self.one, "2")
        await self.backlog.stage(1, ORIGIN, [stuck])
        await self.db.write(lambda txn: txn.execute("UPDATE staged_pdus SET attempts = 1"))
        await self.receive(good.pdu)
        self.assertEqual(self.script.calls, [("", self.one.room_id, [good.event_id])])

    async def test_a_slow_room_holds_up_neither_the_others_nor_the_answer(self) -> None:
        slow, quick = self.message(self.one), self.message(self.two)
        hold = self.script.hold[self.one.room_id] = Deferred()
        answer = self.begin_receiving(slow.pdu, quick.pdu)
        await eventually(lambda: len(self.script.calls) == 2)
        self.clock.advance(module.PATIENCE_S)
        self.assertEqual(await answer, {slow.event_id: {}, quick.event_id: {}})
        self.assertEqual(await self.waiting(1), {slow.event_id: 0})
        self.assertEqual(await self.waiting(2), {})
        hold.callback(None)

    async def test_a_busy_room_lets_events_wait(self) -> None:
        hold = self.script.hold[self.one.room_id] = Deferred()
        events = [self.message(self.one, str(n)) for n in range(module.MAX_QUEUED + 1)]
        waiting = []
        for number, event in enumerate(events[:-1], 1):
            waiting.append(self.begin_receiving(event.pdu))
            await eventually(self._called(number))
        await self.receive(events[-1].pdu)
        self.assertEqual(await self.waiting(), {events[-1].event_id: 0})
        hold.callback(None)
        for each in waiting:
            await each

    def _called(self, times: int) -> Callable[[], bool]:
        return lambda: len(self.script.calls) == times

    async def test_slow_keys_of_a_third_server(self) -> None:
        self.checker.hold["b.example"] = Deferred()
        own = self.message(self.one, "own")
        foreign = self.message(self.one, "foreign", "@b:b.example")
        answer = self.begin_receiving(own.pdu, foreign.pdu)
        await eventually(lambda: self.checker.calls == 2)
        self.clock.advance(module.KEY_PATIENCE_S)
        found = await answer
        self.assertEqual(found[own.event_id], {})
        self.assertIn("keys", found[foreign.event_id]["error"])

    async def test_too_many_wait(self) -> None:
        self.inbound._backlog = self.make_backlog(bounds=Bounds(room=Bound(1, 10**6)))
        first, second = self.message(self.one, "1"), self.message(self.one, "2")
        for event in (first, second):
            self.script.verdicts[event.event_id] = Verdict(-1)
        found = await self.receive(first.pdu, second.pdu)
        self.assertEqual(found[first.event_id], {})
        self.assertIn("Too many", found[second.event_id]["error"])

    async def test_a_failure_of_the_server_itself_loses_nothing(self) -> None:
        event = self.message(self.one)
        self.script.fails.add(event.event_id)
        self.assertEqual(await self.receive(event.pdu), {event.event_id: {}})
        self.assertEqual(await self.waiting(), {event.event_id: 0})
        self.flushLoggedErrors()

    async def test_a_database_that_is_away_fails_the_transaction(self) -> None:
        async def fail(*args: Any, **options: Any) -> Any:
            raise DatabaseUnavailable("on purpose")

        self.patch(self.script, "add", fail)
        with self.assertRaises(DatabaseUnavailable):
            await self.receive(self.message(self.one).pdu)

    async def test_a_database_that_goes_away_fails_the_transaction(self) -> None:
        """While events are added: they are not taken for ones that harm."""
        event = self.message(self.one)
        self.script.fails.add(event.event_id)
        self.script.failure = DatabaseUnavailable("away")
        self.script.hold[self.one.room_id] = Deferred()
        receiving = self.begin_receiving(event.pdu)
        await eventually(lambda: bool(self.script.calls))
        self.script.hold.pop(self.one.room_id).callback(None)
        with self.assertRaises(DatabaseUnavailable):
            await receiving
        self.assertEqual(await self.waiting(), {})
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_rooms_that_are_not_known(self) -> None:
        """Shows RECV-2: an error where the event ID can be told."""
        found = {}
        for version in ("1", "10", "12"):
            room = RoomBuilder("10" if version == "10" else version, room_id="!x:y.example")
            event = self.message(room)
            found[version] = await self.receive(event.pdu)
            if version != "10":
                self.assertEqual(list(found[version]), [event.event_id])
                self.assertIn("error", found[version][event.event_id])
        # Which version the room has is not known.
        self.assertEqual(found["10"], {})
        self.assertEqual(self.script.calls, [])

    async def test_no_room_id(self) -> None:
        pdu = copy.deepcopy(self.message(self.one).pdu)
        del pdu["room_id"]
        self.assertEqual(await self.receive(pdu), {})
        create = RoomBuilder("12").create
        self.assertEqual(list(await self.receive(create.pdu)), [create.event_id])
        self.assertEqual(self.script.calls, [])

    async def test_long_room_ids_are_not_remembered(self) -> None:
        """They may be as long as a transaction."""
        before = pdu_names._valid_room_id.cache_info().misses
        pdu = {**self.message(self.one).pdu, "room_id": "!" + "a" * 100_000 + ":b.example"}
        answers = await self.receive(pdu)
        self.assertTrue(all("error" in answer for answer in answers.values()))
        self.assertEqual(pdu_names._valid_room_id.cache_info().misses, before)

    async def test_rubbish(self) -> None:
        """Shows RECV-2."""
        event = self.message(self.one)
        rubbish: list[Any] = [None, 1, "x", [], {}, {"room_id": 1}, {"room_id": "!x\x00:y"}]
        odd_ids: list[Any] = [1, [], {}, "$", "x" * 300]
        odd = [{"room_id": "!x:y", "event_id": each} for each in odd_ids]
        self.assertEqual(await self.receive(*rubbish, event.pdu, *odd), {event.event_id: {}})

    async def test_the_end_of_an_invite_is_handed_on(self) -> None:
        """Shows FJ-16."""
        await self.db.write(lambda txn: txn.execute("UPDATE memberships SET membership = 'invite'"))
        kick = self.one.kick(self.one.creator, f"@local:{SERVER}")
        ban = self.one.ban(self.one.creator, f"@local:{SERVER}")
        join = self.one.join(f"@local:{SERVER}")
        other = self.one.kick(self.one.creator, "@b:b.example")
        found = await self.receive(kick.pdu, ban.pdu, join.pdu, other.pdu)
        self.assertEqual(self.invites.events, [kick, ban])
        self.assertTrue(all("error" in answer for answer in found.values()))
        self.assertEqual(self.script.calls, [])
