"""Tests of the decisions about gaps in a room's graph."""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.trial.unittest import TestCase

from homeserver.core import gaps
from homeserver.core.event import Event
from tests.support.events import ALICE, BOB, RoomBuilder


class Claimed(NamedTuple):
    """An event that is known by its names."""

    event_id: str
    type: str
    state_key: str | None


def by_id(*events: Event) -> dict[str, Event]:
    return {event.event_id: event for event in events}


class Edge(TestCase):
    def test_only_what_nobody_has(self) -> None:
        """Predecessors among the events, or in their place already, are not missing."""
        room = RoomBuilder.started()
        first, second = room.message(), room.message()
        third = room.message(prev=[second, "$nobody", "$here"])
        self.assertEqual(
            gaps.edge(by_id(second, third), {"$here"}),
            {second.event_id: (first.event_id,), third.event_id: ("$nobody",)},
        )

    def test_nothing_missing(self) -> None:
        """Events that stand on what is here have no edge; a create event stands on nothing."""
        room = RoomBuilder.started()
        last = room.message()
        self.assertEqual(gaps.edge(by_id(last), set(last.prev_event_ids)), {})
        self.assertEqual(gaps.edge(by_id(room.create), set()), {})


class Ancestors(TestCase):
    def test_rubbish_is_left_out(self) -> None:
        """Events that lie on no way back from those asked for are not used."""
        room = RoomBuilder.started()
        first, second = room.message(), room.message()
        aside = room.message(prev=[first], add=False)
        later = room.message()
        found = gaps.ancestors([second.event_id], [later, aside, first, second])
        self.assertEqual(set(found), {first.event_id, second.event_id})

    def test_a_break_in_the_chain_ends_it(self) -> None:
        """What lies behind an event that was not given is not known to be an ancestor."""
        room = RoomBuilder.started()
        first, _, third = room.message(), room.message(), room.message()
        self.assertEqual(set(gaps.ancestors([third.event_id], [first, third])), {third.event_id})

    def test_cycles(self) -> None:
        """Events that come before each other do no harm (room versions 1 and 2 allow the names)."""
        room = RoomBuilder.started("1")
        first = room.message(prev=["$second:a.example"], event_id="$first:a.example")
        second = room.message(prev=["$first:a.example"], event_id="$second:a.example")
        found = gaps.ancestors(["$second:a.example"], [first, second])
        self.assertEqual(set(found), {"$first:a.example", "$second:a.example"})
        self.assertEqual(gaps.edge(found, set()), {})


class AuthChains(TestCase):
    def test_ten_thousand_deep(self) -> None:
        """A chain of 10,000 auth events is put in order, without recursion. Shows RECV-8."""
        room = RoomBuilder.started("11")
        previous: Event | str = room.create
        events = {}
        for number in range(10_000):
            previous = room.event("org.example", ALICE, {"n": number}, prev=[], auth=[previous])
            events[previous.event_id] = previous
        assert isinstance(previous, Event)
        self.assertEqual(len(gaps.auth_chain([previous.event_id], events)), 10_000)
        order = gaps.complete_by_auth(events, {room.create.event_id})
        self.assertEqual([event.content["n"] for event in order], list(range(10_000)))

    def test_incomplete_chains_are_left_out(self) -> None:
        """An event one of whose auth events is nowhere is not stored, nor what rests on it."""
        room = RoomBuilder.started()
        lost = room.event("org.example", ALICE, auth=["$nowhere"])
        rests = room.event("org.example", ALICE, auth=[lost])
        sound = room.event("org.example", ALICE, auth=["$stored"])
        events = by_id(lost, rests, sound)
        self.assertEqual(gaps.complete_by_auth(events, {"$stored"}), [sound])
        self.assertEqual(gaps.missing_auth(events, {"$stored"}), {"$nowhere"})

    def test_cycles_are_left_out(self) -> None:
        """Events that authorise each other are never stored."""
        room = RoomBuilder.started("1")
        one = room.event("x", ALICE, auth=["$two:a.example"], event_id="$one:a.example")
        two = room.event("x", ALICE, auth=["$one:a.example"], event_id="$two:a.example")
        self.assertEqual(gaps.complete_by_auth(by_id(one, two), set()), [])
        self.assertEqual(len(gaps.auth_chain(["$one:a.example"], by_id(one, two))), 2)


class ClaimedStates(TestCase):
    def setUp(self) -> None:
        self.room = RoomBuilder.started("10", members=[BOB])

    def why(self, without: Any = (), more: Any = (), **options: Any) -> str | None:
        """Why the room's state is refused before a message of Bob's, having been changed."""
        state = {key: e for key, e in self.room.state.items() if key not in without}
        claimed = [Claimed(e.event_id, e.type, e.state_key) for e in state.values()]
        event = options.pop("event", None) or self.room.message(BOB, add=False)
        settings = {
            "create_id": self.room.create.event_id,
            "had_power_levels": True,
            **options,
        }
        return gaps.why_unusable(event, [*claimed, *more], state, **settings)

    def test_the_room_s_state(self) -> None:
        """The state that really is before an event is believed."""
        self.assertIsNone(self.why())

    def test_without_create(self) -> None:
        """A state without create event is refused. Shows RECV-8."""
        self.assertIn("no create event", self.why([gaps.CREATE]) or "")

    def test_of_another_room(self) -> None:
        """A state with another create event than the room's is refused."""
        self.assertIn("not the room's", self.why(create_id="$other") or "")

    def test_without_power_levels(self) -> None:
        """Power levels never vanish; a room that never had any may be without. Shows RECV-8."""
        self.assertIn("no power levels", self.why([gaps.POWER_LEVELS]) or "")
        self.assertIsNone(self.why([gaps.POWER_LEVELS], had_power_levels=False))

    def test_no_state(self) -> None:
        """A message is no part of a state, and no key is there twice."""
        message = Claimed("$m", "m.room.message", None)
        self.assertIn("not a state event", self.why(more=[message]) or "")
        twice = Claimed("$second", "m.room.create", "")
        self.assertIn("two events", self.why(more=[twice]) or "")

    def test_a_state_that_forbids_the_event(self) -> None:
        """Nobody gets an event rejected by saying that its sender was not in the room."""
        problem = self.why([("m.room.member", BOB)])
        self.assertIn("does not allow", problem or "")
