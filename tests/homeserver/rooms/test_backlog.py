"""Events that wait."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from homeserver.core.event import Event
from homeserver.rooms import backlog as module
from homeserver.rooms.backlog_size import BacklogSize
from storage import leases, received
from storage.received import Bound, Bounds
from tests.homeserver.rooms.waiting import ORIGIN, Verdict, WaitingCase, put_room
from tests.support.databases import on_each_database
from tests.support.events import RoomBuilder
from tests.support.federation import eventually

LEASE = f"staged:1:{ORIGIN}"
NOT_ADDED = Verdict(-1, "something is missing")


@on_each_database
class BacklogTest(WaitingCase):
    async def stage(self, *events: Event, origin: str = ORIGIN, room_nid: int = 1) -> set[str]:
        return await self.backlog.stage(room_nid, origin, events)

    async def test_what_waits_is_added(self) -> None:
        event = self.message(self.one)
        self.begin(self.backlog)
        await self.stage(event)
        await self.backlog.idle()
        self.assertEqual(self.script.calls, [(ORIGIN, self.one.room_id, [event.event_id])])
        self.assertEqual(await self.waiting(), {})

    async def test_how_much_waits(self) -> None:
        size = BacklogSize(self.db, self.clock)
        await size.count()
        self.assertEqual((size.events, size.oldest_s), (0, 0))
        await self.stage(self.message(self.one))
        self.clock.advance(5)
        await self.stage(self.message(self.one), self.message(self.one))
        await size.count()
        self.clock.advance(5)
        self.assertEqual((size.events, size.oldest_s), (3, 10))

    async def test_it_survives_the_process(self) -> None:
        event = self.message(self.one)
        await self.stage(event)
        other = self.make_backlog(await self.open(self.url))
        self.begin(other)
        await other.idle()
        self.assertEqual(self.script.calls[0][2], [event.event_id])
        self.assertEqual(await self.waiting(), {})

    async def test_rejected_events_wait_no_more(self) -> None:
        event = self.message(self.one)
        self.script.verdicts[event.event_id] = Verdict(2, "no")
        self.begin(self.backlog)
        await self.stage(event)
        await self.backlog.idle()
        self.assertEqual(await self.waiting(), {})

    async def test_what_cannot_be_completed_is_tried_more_and_more_rarely(self) -> None:
        event = self.message(self.one)
        self.script.verdicts[event.event_id] = NOT_ADDED
        self.begin(self.backlog)
        await self.stage(event)
        await self.backlog.idle()
        self.assertEqual(await self.waiting(), {event.event_id: 1})
        await self.pass_time(5)
        self.assertEqual(await self.waiting(), {event.event_id: 1})
        await self.pass_time(10)
        self.assertEqual(await self.waiting(), {event.event_id: 2})
        del self.script.verdicts[event.event_id]
        await self.pass_time(60)
        self.assertEqual(await self.waiting(), {})

    async def test_it_is_given_up_in_the_end(self) -> None:
        event = self.message(self.one)
        self.script.verdicts[event.event_id] = NOT_ADDED
        self.begin(self.backlog)
        await self.stage(event)
        await self.backlog.idle()
        for _ in range(module.MAX_ATTEMPTS - 2):
            await self.pass_time(module.MAX_DELAY_MS / 1000)
        self.assertEqual(await self.waiting(), {event.event_id: module.MAX_ATTEMPTS - 1})
        await self.pass_time(module.MAX_DELAY_MS / 1000)
        self.assertEqual(await self.waiting(), {})

    async def test_a_slow_room_does_not_block_others(self) -> None:
        slow, quick = self.message(self.one), self.message(self.two)
        self.script.hold[self.one.room_id] = Deferred()
        self.begin(self.backlog)
        await self.stage(slow)
        await eventually(lambda: bool(self.script.calls))
        await self.stage(quick, room_nid=2)

        async def done() -> bool:
            return not await self.waiting(2)

        await eventually(done)
        self.assertEqual(await self.waiting(1), {slow.event_id: 0})
        self.script.hold[self.one.room_id].callback(None)
        await self.backlog.idle()
        self.assertEqual(await self.waiting(1), {})

    async def test_a_try_that_takes_for_ever(self) -> None:
        event = self.message(self.one)
        self.script.hold[self.one.room_id] = Deferred()
        self.begin(self.backlog)
        await self.stage(event)
        await eventually(lambda: bool(self.script.calls))
        for _ in range(int(module.TRY_FOR_S)):
            self.clock.advance(1)
            await self.settled(self.db)
        await self.backlog.idle()
        self.assertEqual(await self.waiting(), {event.event_id: 1})

    async def test_a_slow_server_does_not_block_others_in_a_room(self) -> None:
        slow, quick = self.message(self.one, "slow"), self.message(self.one, "quick")
        hold = self.script.hold[ORIGIN] = Deferred()
        self.begin(self.backlog)
        await self.stage(slow)
        await eventually(lambda: bool(self.script.calls))
        await self.stage(quick, origin="z.example")

        async def done() -> bool:
            return await self.waiting() == {slow.event_id: 0}

        await eventually(done)
        hold.callback(None)
        await self.backlog.idle()

    async def test_one_server_has_its_share_of_the_work(self) -> None:
        rooms = [RoomBuilder("10", room_id=f"!{n}:a.example") for n in range(module.MAX_SHARE + 1)]
        hold = self.script.hold[ORIGIN] = Deferred()
        for number, room in enumerate(rooms, 10):
            await self.db.write(put_room, room, number)
            await self.stage(self.message(room), room_nid=number)
        await self.stage(self.message(self.one), origin="z.example")
        self.begin(self.backlog)
        await eventually(lambda: len(self.script.calls) == module.MAX_SHARE + 1)
        origins = [origin for origin, _, _ in self.script.calls]
        self.assertEqual(sorted(origins), [ORIGIN] * module.MAX_SHARE + ["z.example"])
        hold.callback(None)
        await self.backlog.idle()
        self.assertEqual(len(self.script.calls), module.MAX_SHARE + 2)

    async def test_many_events_are_tried_in_batches(self) -> None:
        self.patch(module, "BATCH", 2)
        self.patch(module, "ROUNDS", 2)
        await self.stage(*(self.message(self.one, str(number)) for number in range(10)))
        self.begin(self.backlog)
        await self.backlog.idle()
        self.assertEqual([len(names) for _, _, names in self.script.calls], [2] * 5)
        self.assertEqual(await self.waiting(), {})

    async def test_an_event_that_nobody_can_deal_with(self) -> None:
        events = [self.message(self.one, str(number)) for number in range(3)]
        self.script.fails.add(events[1].event_id)
        await self.stage(*events)
        self.begin(self.backlog)
        await self.backlog.idle()
        self.assertEqual(await self.waiting(), {events[1].event_id: 1})

    async def test_the_number_that_may_wait_is_bounded(self) -> None:
        bounds = Bounds(queue=Bound(3, 10**6), room=Bound(4, 10**6), origin=Bound(5, 10**6))
        self.backlog = self.make_backlog(bounds=bounds)
        events = [self.message(self.one, str(number)) for number in range(5)]
        kept = await self.stage(*events)
        self.assertEqual(kept, {event.event_id for event in events[:3]})
        # What waits already is no more by being sent again.
        self.assertEqual(await self.stage(*events), kept)
        more = [self.message(self.one, f"more {number}") for number in range(3)]
        self.assertEqual(len(await self.stage(*more, origin="z.example")), 1)
        others = [self.message(self.two, str(number)) for number in range(3)]
        self.assertEqual(len(await self.stage(*others, room_nid=2)), 2)

    async def test_the_bytes_that_may_wait_are_bounded(self) -> None:
        events = [self.message(self.one, "x" * 10_000) for _ in range(3)]
        small = Bound(100, 25_000)
        for bounds in (Bounds(queue=small), Bounds(room=small), Bounds(origin=small)):
            self.backlog = self.make_backlog(bounds=bounds)
            self.assertEqual(len(await self.stage(*events)), 2)
            await self.db.write(received.remove_room, 1)

    async def test_one_process_works_on_a_room_at_a_time(self) -> None:
        event = self.message(self.one)
        self.script.hold[self.one.room_id] = Deferred()
        await self.stage(event)
        self.begin(self.backlog)
        await eventually(lambda: bool(self.script.calls))
        other = self.make_backlog(await self.open(self.url))
        self.begin(other)
        await other.idle()
        self.assertEqual(len(self.script.calls), 1)
        self.script.hold[self.one.room_id].callback(None)
        await self.backlog.idle()

    async def test_the_rooms_of_a_dead_process_are_taken_over(self) -> None:
        event = self.message(self.one)
        await self.stage(event)
        now_ms = int(self.clock.seconds() * 1000)
        await self.db.write(leases.claim, [LEASE], "dead", now_ms, leases.DURATION_MS)
        self.begin(self.backlog)
        await self.backlog.idle()
        self.assertEqual(self.script.calls, [])
        await self.pass_time(leases.DURATION_MS / 1000 + 1)
        self.assertEqual(len(self.script.calls), 1)
        self.assertEqual(await self.waiting(), {})

    async def test_events_of_a_room_that_was_left(self) -> None:
        await self.stage(self.message(self.one))
        await self.db.write(lambda txn: txn.execute("UPDATE memberships SET membership = 'leave'"))
        self.begin(self.backlog)
        await self.backlog.idle()
        self.assertEqual((self.script.calls, await self.waiting()), ([], {}))

    async def test_stopping_leaves_what_is_not_done(self) -> None:
        event = self.message(self.one)
        self.script.hold[self.one.room_id] = Deferred()
        await self.stage(event)
        self.backlog.start()
        await eventually(lambda: bool(self.script.calls))
        await self.backlog.stop()
        self.assertEqual(await self.waiting(), {event.event_id: 0})
        now_ms = int(self.clock.seconds() * 1000)
        self.assertIsNone(await self.db.read(leases.owner_of, LEASE, now_ms))

    def test_delays(self) -> None:
        delays = [module.retry_delay_ms(number) for number in (1, 2, 3, 50)]
        self.assertEqual(delays, [10_000, 30_000, 90_000, module.MAX_DELAY_MS])
