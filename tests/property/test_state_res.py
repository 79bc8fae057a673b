"""Properties of state resolution, on rooms that grow in branches."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import state_res, state_sets
from tests.property.reference_state_res import Reference
from tests.property.room_scripts import STEPS, Step, play

VERSIONS = st.sampled_from(["2", "6", "11", "12"])
ALL_VERSIONS = st.sampled_from(["1", "2", "6", "11", "12"])


class StateResolution(TestCase):
    @settings(max_examples=150, deadline=None)
    @given(VERSIONS, STEPS)
    def test_as_the_specification_says(self, version: str, steps: list[Step]) -> None:
        """Shows RES-3, RES-4, RES-5, RES-6, RES-7, RES-8. The result is that of the definitions
        taken literally."""
        branches = play(version, steps)
        events = branches[0].events
        reference = Reference(events, branches[0].create)
        for chosen in (branches[:2], branches):
            resolved = state_res.resolve(
                [branch.state_ids for branch in chosen], events.get, branches[0].version
            )
            expected = reference.resolve([branch.state for branch in chosen])
            self.assertEqual(resolved, {key: event.event_id for key, event in expected.items()})

    @settings(max_examples=100, deadline=None)
    @given(ALL_VERSIONS, STEPS, st.randoms(use_true_random=False))
    def test_order_of_arrival(
        self, version: str, steps: list[Step], shuffler: random.Random
    ) -> None:
        """Shows RES-10. Neither the order of states, nor that of their entries, nor repetition,
        nor how events are fetched changes the result."""
        branches = play(version, steps)
        events = branches[0].events
        room_version = branches[0].version
        states = [branch.state_ids for branch in branches]
        expected = state_res.resolve(states, events.get, room_version)
        for _ in range(3):
            shuffled = [shuffled_dict(state, shuffler) for state in [*states, states[0]]]
            shuffler.shuffle(shuffled)
            resolved = state_res.resolve(
                shuffled,
                events.get,
                room_version,
                get_events=lambda ids: {event_id: events[event_id] for event_id in ids},
            )
            self.assertEqual(resolved, expected)

    @settings(max_examples=100, deadline=None)
    @given(ALL_VERSIONS, STEPS)
    def test_keeps_what_all_agree_on(self, version: str, steps: list[Step]) -> None:
        """Shows RES-7. Unconflicted state stays, and every entry is an event of its key that one
        of the rooms' servers has seen."""
        branches = play(version, steps)
        events = branches[0].events
        states = [branch.state_ids for branch in branches]
        resolved = state_res.resolve(states, events.get, branches[0].version)
        unconflicted, conflicted = state_sets.separate(states)
        self.assertLessEqual(unconflicted.items(), resolved.items())
        for key, event_id in resolved.items():
            self.assertEqual(events[event_id].key, key)
        changes = state_res.resolve_conflicts(
            conflicted, unconflicted, events.get, branches[0].version
        )
        self.assertEqual({**unconflicted, **changes}, resolved)


def shuffled_dict(state: state_sets.StateMap, shuffler: random.Random) -> state_sets.StateMap:
    items = list(state.items())
    shuffler.shuffle(items)
    return dict(items)
