"""Events of other servers: entering their rooms, judging what they send, forks that heal."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor

from homeserver.core.event import Event
from homeserver.core.ids import UserID
from homeserver.core.types import StateKey
from homeserver.rooms.judged import Reset
from homeserver.rooms.receive import NOT_ADDED, BadState, KnownState, Receiver
from storage import events, gaps, memberships, room_servers, rooms, state
from storage.events import ACCEPTED, MISPLACED, REJECTED, SOFT_FAILED
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.events import ALICE as REMOTE
from tests.support.events import ALL_VERSIONS, BOB, CAROL, RoomBuilder
from tests.support.rooms import ALICE, SERVER_NAME, RoomServices


class ReceivingCase(DatabaseTestCase):
    """A room of `a.example`, `b.example` and `c.example` that a local user, ALICE, is in."""

    services: RoomServices
    receiver: Receiver
    room: RoomBuilder
    join: Event

    async def prepare(self) -> None:
        self.db = await self.open()

    async def enter(self, version: str = "12", **options: Any) -> None:
        self.services = RoomServices(self.db)
        self.resets: list[Reset] = []
        self.receiver = Receiver(
            self.db,
            self.services.appender,
            reactor,
            on_reset=[lambda room_id, resets: self.resets.extend(resets)],
        )
        self.room = RoomBuilder.started(
            version, members=[BOB, CAROL], room_id=f"!room{version}:a.example", **options
        )
        state_before = list(self.room.state.values())
        chain = [e for e in self.room.events.values() if e.is_state and e not in state_before]
        self.join = self.room.join(ALICE)
        judged = await self.receiver.adopt(self.join, self.room.version, state_before, chain)
        self.assertEqual(judged.status, ACCEPTED)

    async def receive(self, *events: Event, **options: Any) -> list[int]:
        judged = await self.receiver.add(self.room.room_id, events, **options)
        return [judged[event.event_id].status for event in events]

    async def state(self) -> dict[StateKey, str]:
        """The current state, as all projections have it."""

        def read(txn: Transaction) -> dict[StateKey, str]:
            row = rooms.get(txn, self.room.room_id)
            assert row is not None and row.state_root is not None
            current = state.current(txn, row.room_nid)
            view = self.services.view(txn, self.room.room_id, ALICE)
            tree = {key: found.event_id for key, found in view.state_at(row.state_root).items()}
            found = {key: entry.event_id for key, entry in current.items()}
            self.assertEqual(found, tree)
            newest = state.root_at(txn, row.room_nid, row.last_pos)
            self.assertEqual(newest, row.state_root)
            joined: dict[str, int] = {}
            for member in memberships.of_room(txn, row.room_nid, ["join"]):
                event = current["m.room.member", member.user_id]
                self.assertEqual(member.event_id, event.event_id)
                domain = UserID(member.user_id).domain
                joined[domain] = joined.get(domain, 0) + 1
            others = set(joined) - {SERVER_NAME}
            self.assertEqual(set(room_servers.of_room(txn, row.room_nid)), others)
            self.assertEqual(row.remote_servers, len(others))
            return found

        return await self.services.db.read(read)

    async def assert_state(self) -> None:
        """The room's state is that of the builder."""
        self.assertEqual(await self.state(), self.room.state_ids)

    async def heads(self) -> set[str]:
        return set((await self.services.room(self.room.room_id)).extremities)


@on_each_database
class EnteringTest(ReceivingCase):
    async def test_a_room_of_others(self) -> None:
        """All room versions."""
        for version in ALL_VERSIONS:
            if version == "2":
                # Its event IDs are chosen, and those of version 1 are taken.
                self.db = await self.open()
            await self.enter(version)
            await self.assert_state()
            self.assertEqual(await self.heads(), {self.join.event_id})
            said = await self.services.say(self.room.room_id)
            event = await self.services.event(said)
            self.assertEqual(event.prev_event_ids, (self.join.event_id,))
            self.assertTrue((await self.services.row(said)).outgoing)

    async def test_what_is_no_state_is_refused(self) -> None:
        """Shows FJ-8."""
        await self.enter()
        room = RoomBuilder.started("11", members=[BOB], room_id="!other:a.example")
        before = list(room.state.values())
        join = room.join(ALICE)
        without_create = [event for event in before if not event.is_create]
        for wrong in (without_create, [*before, room.power_levels(users={BOB: 100})]):
            with self.assertRaises(BadState):
                await self.receiver.adopt(
                    join, room.version, wrong, [room.create][: wrong is before]
                )
        self.assertIsNone(await self.db.read(rooms.nid, room.room_id))

    async def test_bad_events_of_the_state_are_left_out(self) -> None:
        """Shows FJ-7."""
        self.services = RoomServices(self.db)
        self.receiver = Receiver(self.db, self.services.appender, reactor)
        self.room = room = RoomBuilder.started("12", members=[BOB])
        before = list(room.state.values())
        forged = room.set_state("m.room.topic", {"topic": "x"}, BOB, add=False)
        join = room.join(ALICE)
        await self.receiver.adopt(join, room.version, [*before, forged], [])
        await self.assert_state()
        self.assertEqual((await self.services.row(forged.event_id)).status, REJECTED)

    async def test_history_that_is_missing_is_noted(self) -> None:
        await self.enter()

        def read(txn: Transaction) -> list[gaps.Gap]:
            row = rooms.get(txn, self.room.room_id)
            assert row is not None
            return gaps.at_or_above(txn, row.room_nid, 0, 10)

        (gap,) = await self.db.read(read)
        self.assertEqual((gap.event_id,), self.join.prev_event_ids)
        self.assertEqual(gap.successor, self.join.event_id)


@on_each_database
class JudgingTest(ReceivingCase):
    async def test_what_others_say_is_in_the_room(self) -> None:
        await self.enter()
        events = [self.room.message(BOB), self.room.set_state("m.room.topic", {"topic": "t"})]
        events.append(self.room.message(CAROL))
        self.assertEqual(await self.receive(*reversed(events)), [ACCEPTED] * 3)
        await self.assert_state()
        self.assertEqual(await self.heads(), {events[-1].event_id})
        log = await self.services.log(self.room.room_id)
        shown = [row.event_id for row in log if row.pos is not None]
        self.assertEqual(shown[-3:], [event.event_id for event in events])
        again = await self.receiver.add(self.room.room_id, events)
        self.assertEqual({judged.is_new for judged in again.values()}, {False})
        self.assertEqual(len(await self.services.log(self.room.room_id)), len(log))

    async def test_rejected_by_the_state_before(self) -> None:
        """State after a rejected event is as before; what follows it may be fine.

        Shows RECV-3, RECV-4."""
        await self.enter()
        old_member = self.room.state["m.room.member", BOB]
        ban = self.room.ban(REMOTE, BOB)
        before = self.room.fork()
        wrong = self.room.event(
            "m.room.topic",
            BOB,
            {"topic": "?"},
            "",
            state={**self.room.state, old_member.key: old_member},
            auth=[self.room.state["m.room.power_levels", ""], old_member],
        )
        self.room.state = before.state
        after = self.room.message(CAROL)
        self.assertEqual(await self.receive(ban, wrong, after), [ACCEPTED, REJECTED, ACCEPTED])
        await self.assert_state()
        self.assertEqual(await self.heads(), {after.event_id})
        row = await self.services.row(wrong.event_id)
        self.assertEqual((row.pos, row.state_before), (None, row.state_after))

    async def test_misplaced(self) -> None:
        """Allowed by its auth events, forbidden by the state before it. Shows RECV-1, RECV-3."""
        await self.enter(power={"events_default": 0})
        old_member = self.room.state["m.room.member", BOB]
        ban = self.room.ban(REMOTE, BOB)
        wrong = self.room.message(BOB, state={**self.room.state, old_member.key: old_member})
        after = self.room.message(CAROL)
        self.assertEqual(await self.receive(ban, wrong, after), [ACCEPTED, MISPLACED, ACCEPTED])
        await self.assert_state()
        self.assertEqual(await self.heads(), {after.event_id})

    async def test_soft_failure(self) -> None:
        """Shows RECV-5, RECV-7."""
        await self.enter()
        branch = self.room.fork()
        ban = self.room.ban(REMOTE, BOB)
        await self.receive(ban)
        late = branch.message(BOB)
        later = branch.message(CAROL)
        self.assertEqual(await self.receive(late), [SOFT_FAILED])
        self.assertEqual(await self.heads(), {ban.event_id})
        self.assertIsNone((await self.services.row(late.event_id)).pos)
        self.assertEqual(await self.receive(later), [ACCEPTED])
        self.assertEqual(await self.heads(), {ban.event_id, later.event_id})
        await self.assert_state()
        said = await self.services.say(self.room.room_id)
        event = await self.services.event(said)
        self.assertEqual(set(event.prev_event_ids), {ban.event_id, later.event_id})

    async def test_a_soft_failed_state_event_can_win_later(self) -> None:
        """Shows RECV-6."""
        await self.enter(users={BOB: 50, CAROL: 100}, version="11")
        branch = self.room.fork()
        demotion = self.room.power_levels(users={REMOTE: 100, CAROL: 100})
        await self.receive(demotion)
        topic = branch.set_state("m.room.topic", {"topic": "late"}, BOB)
        self.assertEqual(await self.receive(topic), [SOFT_FAILED])
        self.assertNotIn(topic.key, await self.state())
        # A branch that knows of both, where the demotion never was in force.
        promotion = branch.power_levels(CAROL, users={REMOTE: 100, CAROL: 100, BOB: 50}, ban=60)
        await self.receive(promotion)
        resolved = await self.state()
        self.assertEqual(resolved.get(topic.key), topic.event_id)

    async def test_forks_are_resolved(self) -> None:
        """Whoever is banned in one branch is so in both; the change is reported."""
        await self.enter(version="11", users={BOB: 50})
        branch = self.room.fork()
        ban = self.room.ban(REMOTE, BOB)
        topic = branch.set_state("m.room.topic", {"topic": "mine"}, BOB)
        # The branch of the banned comes first.
        self.assertEqual(await self.receive(topic), [ACCEPTED])
        self.assertEqual(self.resets, [])
        self.assertEqual(await self.receive(ban), [ACCEPTED])
        self.assertEqual(await self.heads(), {ban.event_id, topic.event_id})
        resolved = await self.state()
        self.assertEqual(resolved["m.room.member", BOB], ban.event_id)
        self.assertNotIn(topic.key, resolved)
        self.assertEqual(self.resets, [Reset(topic.key, topic.event_id, None)])
        said = await self.services.say(self.room.room_id)
        self.assertEqual(await self.heads(), {said})
        self.assertEqual(await self.state(), resolved)

    async def test_memberships_that_change_by_resolution_are_logged(self) -> None:
        await self.enter(version="11", users={BOB: 50})
        branch = self.room.fork()
        ban = self.room.ban(REMOTE, BOB)
        invited = branch.invite(BOB, "@dora:hearth.test")
        await self.receive(invited)
        await self.receive(ban)
        await self.state()

        def read(txn: Transaction) -> str | None:
            nid = rooms.nid(txn, self.room.room_id)
            assert nid is not None
            row = memberships.get(txn, nid, "@dora:hearth.test")
            log = memberships.at(txn, nid, "@dora:hearth.test", 2**60)
            assert row is not None and log is not None
            self.assertEqual(log.membership, row.membership)
            return row.membership

        self.assertEqual(await self.db.read(read), "leave")

    async def test_unknown_predecessors(self) -> None:
        """Shows RECV-8."""
        await self.enter()
        missing = self.room.message(BOB)
        event = self.room.message(CAROL)
        following = self.room.message(CAROL)
        judged = await self.receiver.add(self.room.room_id, [event, following])
        self.assertEqual(judged[event.event_id].status, NOT_ADDED)
        self.assertEqual(judged[event.event_id].missing_prev, (missing.event_id,))
        self.assertEqual(judged[following.event_id].status, NOT_ADDED)
        known = KnownState({key: other.event_id for key, other in self.room.state.items()})
        statuses = await self.receive(event, following, states={event.event_id: known})
        self.assertEqual(statuses, [ACCEPTED, ACCEPTED])
        await self.assert_state()
        self.assertEqual(await self.heads(), {self.join.event_id, following.event_id})
        # The missing one comes later: it is in the room, but no head.
        self.assertEqual(await self.receive(missing), [ACCEPTED])
        self.assertEqual(await self.heads(), {following.event_id})

    async def test_unknown_auth_events(self) -> None:
        """What was not known is judged when it is. Shows RECV-9, RECV-10."""
        await self.enter()
        dora = self.room.join("@dora:b.example")
        event = self.room.message("@dora:b.example", prev=[self.join])
        judged = await self.receiver.add(self.room.room_id, [event])
        self.assertEqual(judged[event.event_id].missing_auth, (dora.event_id,))
        outliers = await self.receiver.add_outliers(self.room.room_id, [dora])
        self.assertEqual(outliers[dora.event_id].status, ACCEPTED)
        self.assertIsNone((await self.services.row(dora.event_id)).pos)
        self.assertEqual(await self.receive(event), [MISPLACED])
        self.assertEqual(await self.receive(dora, event), [ACCEPTED, MISPLACED])
        self.assertEqual((await self.state())[dora.key], dora.event_id)

    async def test_events_of_other_rooms(self) -> None:
        """Shows RECV-11, BF-10."""
        await self.enter("11")
        first = self.room
        stray = first.message(BOB)
        await self.receive(stray)
        other_room = RoomBuilder.started(
            "11", members=[BOB], room_id="!other:a.example", creator=REMOTE
        )
        before = list(other_room.state.values())
        join = other_room.join(ALICE)
        await self.receiver.adopt(join, other_room.version, before, [])
        mixed = other_room.message(BOB, prev=[stray], add=False)
        borrowed = other_room.message(
            BOB,
            auth=[first.create, *[first.state[k] for k in (("m.room.member", BOB),)]],
            add=False,
        )
        judged = await self.receiver.add(other_room.room_id, [mixed, borrowed])
        self.assertEqual({entry.status for entry in judged.values()}, {REJECTED})
        outlier = other_room.join(
            "@eve:c.example", auth=[first.create, first.state["m.room.join_rules", ""]], add=False
        )
        judged = await self.receiver.add_outliers(other_room.room_id, [outlier])
        self.assertEqual(judged[outlier.event_id].status, REJECTED)

    async def test_a_second_create_event(self) -> None:
        for version in ("6", "12"):
            await self.enter(version)
            other = self.room.event(
                "m.room.create",
                REMOTE,
                {"creator": REMOTE, "x": 1},
                "",
                prev=[],
                auth=[],
                add=False,
            )
            self.assertEqual(await self.receive(other), [REJECTED])
            await self.assert_state()

    async def test_rooms_that_this_server_is_not_in(self) -> None:
        await self.enter()
        other = RoomBuilder.started("11", room_id="!unknown:a.example")
        judged = await self.receiver.add(other.room_id, [other.message()])
        self.assertEqual([entry.status for entry in judged.values()], [NOT_ADDED])

    async def test_history(self) -> None:
        """Shows BF-9."""
        await self.enter()
        events = list(self.room.events.values())
        history = [event for event in events if event != self.join]
        head = await self.services.room(self.room.room_id)
        judged = await self.receiver.add_history(self.room.room_id, history)
        self.assertEqual({entry.status for entry in judged.values()}, {ACCEPTED})
        positions = [judged[event.event_id].pos or 0 for event in history]
        self.assertEqual(positions, list(range(-len(history), 0)))
        self.assertEqual(await self.services.room(self.room.room_id), head)
        await self.assert_state()

        def read(txn: Transaction) -> list[gaps.Gap]:
            return gaps.at_or_above(txn, head.room_nid, 0, 10)

        self.assertEqual(await self.db.read(read), [])

    async def test_many_in_one_batch_in_any_order(self) -> None:
        """The same as one by one."""
        await self.enter()
        events: list[Event] = []
        for number in range(60):
            events.append(self.room.message(BOB if number % 2 else CAROL, str(number)))
            if number % 10 == 0:
                events.append(self.room.set_state("m.room.topic", {"topic": str(number)}))
        shuffled = sorted(events, key=lambda event: event.event_id)
        self.assertEqual(set(await self.receive(*shuffled)), {ACCEPTED})
        await self.assert_state()
        log = [row.event_id for row in await self.services.log(self.room.room_id) if row.pos]
        self.assertEqual(log[-len(events) :], [event.event_id for event in events])

    async def test_events_that_only_join_branches_are_not_shown(self) -> None:
        await self.enter()
        dummy = self.room.event("org.matrix.dummy_event", BOB, {})
        said = self.room.message(BOB)
        self.assertEqual(await self.receive(dummy, said), [ACCEPTED, ACCEPTED])

        def seen(txn: Transaction) -> list[str]:
            view = self.services.view(txn, self.room.room_id, ALICE)
            found = events.get_many(txn, [dummy.event_id, said.event_id])
            return [item.row.event_id for item in view.visible(list(found.values()))]

        self.assertEqual(await self.db.read(seen), [said.event_id])
