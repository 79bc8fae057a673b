"""Tests of state resolution as rooms see it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from twisted.trial.unittest import TestCase

from homeserver.core import state_res, state_sets
from homeserver.core.event import Event
from homeserver.core.state_sets import Events
from tests.homeserver.core.resolution_fixtures import JOIN_RULES, TOPIC, member, merged
from tests.support.events import ALICE, BOB, CAROL, RoomBuilder

VERSIONS = ("1", "2", "6", "10", "11", "12")


class Merging(TestCase):
    def test_state_before_an_event_with_several_predecessors(self) -> None:
        """Shows RES-1. The state is the resolution of the states after each predecessor."""
        for version in VERSIONS:
            left = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            right, third = left.fork(), left.fork()
            name = left.set_state("m.room.name", {"name": "n"}, BOB)
            left.message(BOB)
            topic = right.set_state("m.room.topic", {"topic": "t"})
            join = third.join(CAROL)
            third.message(CAROL)
            state = merged(left, right, third)
            self.assertEqual(state["m.room.name", ""], name)
            self.assertEqual(state[TOPIC], topic)
            self.assertEqual(state[member(CAROL)], join)
            left.merge(right, state)
            left.merge(third, state)
            last = left.message(CAROL)
            self.assertEqual(len(last.prev_event_ids), 3)
            self.assertIn(join.event_id, last.auth_event_ids)

    def test_one_state_or_equal_ones(self) -> None:
        """States that agree are their own resolution, without a look at any event."""
        room = RoomBuilder.started("12", members=[BOB])

        def get_event(event_id: str) -> Event | None:
            raise AssertionError(event_id)

        state = room.state_ids
        for states in ([state], [state, dict(state)], [state, state, dict(state)]):
            resolved = state_res.resolve(states, get_event, room.version)
            self.assertEqual(resolved, state)
            self.assertIsNot(resolved, state)

    def test_order_of_the_states(self) -> None:
        """Shows RES-10. States resolve to the same whatever their order."""
        for version in VERSIONS:
            room = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 50, CAROL: 50})
            branches = [room.fork() for _ in range(4)]
            branches[0].ban(BOB, CAROL)
            branches[1].set_state("m.room.topic", {"topic": "c"}, CAROL)
            branches[2].join_rules("invite")
            branches[2].set_state("m.room.topic", {"topic": "a"})
            branches[3].join("@dave:d.example")
            branches[3].set_state("m.room.topic", {"topic": "b"}, BOB)
            results = [merged(*order) for order in itertools.permutations(branches)]
            for result in results:
                self.assertEqual(result, results[0])

    def test_repeated_states(self) -> None:
        """A state counts once, however many predecessors have it."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            b = a.fork()
            a.set_state("m.room.topic", {"topic": "a"})
            b.ban(ALICE, BOB)
            self.assertEqual(merged(a, b, a, b), merged(a, b))


class Interface(TestCase):
    def test_only_the_difference(self) -> None:
        """A difference that is known already resolves to what is to be set."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 50, CAROL: 50})
            b = a.fork()
            a.set_state("m.room.topic", {"topic": "a"}, CAROL)
            a.join(BOB, {"displayname": "B"})
            b.ban(BOB, CAROL)
            b.join(BOB, {"displayname": "Bob"})
            states = [a.state_ids, b.state_ids]
            unconflicted, conflicted = state_sets.separate(states)
            changes = state_res.resolve_conflicts(conflicted, unconflicted, a.events.get, a.version)
            self.assertEqual(
                {**unconflicted, **changes}, state_res.resolve(states, a.events.get, a.version)
            )
            self.assertFalse(changes.keys() & unconflicted.keys())

    def test_fetching_many_at_once(self) -> None:
        """With a way to fetch many events, single ones are fetched rarely, with equal results."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            b = a.fork()
            for number in range(20):
                a.set_state("x", {"n": number}, BOB, state_key=str(number))
                b.set_state("x", {"n": -number}, state_key=str(number))
            b.join_rules("invite")
            singles: list[str] = []
            batches: list[Collection[str]] = []

            def get_event(event_id: str, room: RoomBuilder = a) -> Event | None:
                singles.append(event_id)  # noqa: B023
                return room.events.get(event_id)

            def get_events(
                event_ids: Collection[str], room: RoomBuilder = a
            ) -> Mapping[str, Event]:
                batches.append(event_ids)  # noqa: B023
                return {i: room.events[i] for i in event_ids if i in room.events}

            states = [a.state_ids, b.state_ids]
            result = state_res.resolve(states, get_event, a.version, get_events=get_events)
            self.assertEqual(result, state_res.resolve(states, a.events.get, a.version))
            self.assertLessEqual(len(singles), 1)
            self.assertLessEqual(len(batches), 10)

    def test_unknown_events(self) -> None:
        """Events that are not known are passed over, whether in a state or as auth events."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            b = a.fork()
            lost = a.set_state("m.room.topic", {"topic": "a"})
            kept = b.set_state("m.room.topic", {"topic": "b"}, BOB)
            b.join_rules("invite")
            known = dict(a.events)
            del known[lost.event_id]
            states = [a.state_ids, b.state_ids]
            result = state_res.resolve(states, known.get, a.version)
            self.assertEqual(result[TOPIC], kept.event_id)
            del known[a.state[member(BOB)].event_id]
            result = state_res.resolve(states, known.get, a.version)
            self.assertIn(JOIN_RULES, result)
            # With nothing known, conflicts are decided for nobody.
            result = state_res.resolve(states, lambda event_id: None, a.version)
            self.assertEqual(result.keys() & {TOPIC}, set())


class Separating(TestCase):
    def test_separate(self) -> None:
        """Shows RES-2. A key that is missing from, or differs in, any state is conflicted."""
        a = {("t", "same"): "1", ("t", "differs"): "2", ("t", "missing"): "3"}
        b = {("t", "same"): "1", ("t", "differs"): "4", ("t", "other"): "5"}
        unconflicted, conflicted = state_sets.separate([a, b, dict(a)])
        self.assertEqual(unconflicted, {("t", "same"): "1"})
        rest_of_a = {("t", "differs"): "2", ("t", "missing"): "3"}
        rest_of_b = {("t", "differs"): "4", ("t", "other"): "5"}
        self.assertEqual(conflicted, [rest_of_a, rest_of_b, rest_of_a])
        self.assertEqual(len(a), 3)

    def test_each_event_is_fetched_once(self) -> None:
        """Events, known or not, are asked for once where many are to be had at once."""
        room = RoomBuilder.started("11")
        asked: list[str] = []

        def get_event(event_id: str) -> Event | None:
            asked.append(event_id)
            return room.events.get(event_id)

        def get_events(event_ids: Collection[str]) -> Mapping[str, Event]:
            asked.extend(event_ids)
            return {name: room.events[name] for name in event_ids if name in room.events}

        rejected = room.heads[0]
        events = Events(get_event, get_events, is_rejected=lambda event_id: event_id == rejected)
        for _ in range(3):
            self.assertEqual(events.get(room.create.event_id), room.create)
            self.assertIsNone(events.get("$unknown"))
            self.assertIsNone(events.usable("$unknown"))
            self.assertIsNone(events.usable(room.heads[0]))
            self.assertIsNotNone(events.get(room.heads[0]))
        self.assertEqual(asked, [room.create.event_id, "$unknown", room.heads[0]])
        edges = events.auth_edges({room.heads[0], "$unknown"})
        self.assertEqual(edges, {room.heads[0]: room.events[room.heads[0]].auth_event_ids})
