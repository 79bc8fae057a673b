"""Tests of the event graph."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import graph
from homeserver.core.event import Event
from tests.support.events import ALICE, RoomBuilder

# For each node the earlier nodes that it points to: a graph without cycles.
GRAPHS = st.lists(st.sets(st.integers(0, 30), max_size=4), max_size=30).map(
    lambda rows: {
        node: sorted({target for target in row if target < node}) for node, row in enumerate(rows)
    }
)


class TopologicalSort(TestCase):
    @settings(deadline=None)
    @given(GRAPHS, st.permutations(range(30)), st.randoms(use_true_random=False))
    def test_lexicographically_smallest(
        self, before: dict[int, list[int]], ranks: list[int], shuffler: random.Random
    ) -> None:
        """At each step the smallest of all possible nodes comes; the order given is irrelevant."""
        expected: list[int] = []
        while len(expected) < len(before):
            possible = [
                node
                for node in before
                if node not in expected and set(before[node]) <= set(expected)
            ]
            expected.append(min(possible, key=ranks.__getitem__))
        shuffled = list(before.items())
        shuffler.shuffle(shuffled)
        order = graph.lexicographical_topological_sort(dict(shuffled), ranks.__getitem__)
        self.assertEqual(order, expected)

    def test_nodes_outside_do_not_count(self) -> None:
        """A node that is only pointed to holds up nothing; repeated edges are one."""
        self.assertEqual(
            graph.lexicographical_topological_sort({"a": ["b", "b", "x"], "b": []}, str), ["b", "a"]
        )

    def test_cycles_are_left_out(self) -> None:
        """Nodes on a cycle, and after one, do not appear."""
        before = {"a": ["b"], "b": ["a"], "c": ["a"], "d": ["d"], "e": []}
        self.assertEqual(graph.lexicographical_topological_sort(before, str), ["e"])

    def test_work(self) -> None:
        """Comparisons grow as n log n, also with everything ready at once."""
        compared = 0

        class Key:
            def __init__(self, value: int) -> None:
                self.value = value

            def __lt__(self, other: Any) -> bool:
                nonlocal compared
                compared += 1
                return bool(self.value < other.value)

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Key) and self.value == other.value

            __hash__ = None  # type: ignore[assignment]

        per_step = []
        for number in (1000, 10_000):
            compared = 0
            before = {node: [0] if node else [] for node in range(number)}
            order = graph.lexicographical_topological_sort(
                before, lambda node: Key(node * 7919 % 10_007)
            )
            self.assertEqual(len(order), number)
            per_step.append(compared / (number * number.bit_length()))
        self.assertLess(per_step[1], per_step[0] * 1.2)


class TopologicalOrder(TestCase):
    def test_after_what_it_cites(self) -> None:
        """Events come after their prev and auth events; ties go by depth, time and ID."""
        room = RoomBuilder.started("11")
        room.message()
        fork = room.fork()
        late = room.message(ts=2, depth=9)
        early = fork.message(ts=1, depth=9)
        shallow = room.message(prev=[room.create], depth=1, ts=10**15, add=False)
        events = list(room.events.values())
        random.Random(1).shuffle(events)
        order = graph.topological_order(events)
        self.assertEqual(len(order), len(room.events))
        seen: set[str] = set()
        for event in order:
            self.assertLessEqual({*event.prev_event_ids, *event.auth_event_ids}, seen)
            seen.add(event.event_id)
        self.assertLess(order.index(early), order.index(late))
        self.assertLess(order.index(shallow), order.index(early))
        self.assertEqual(order, graph.topological_order(reversed(order)))

    def test_long_chain(self) -> None:
        """Length is no problem."""
        room = RoomBuilder("11")
        for _ in range(3000):
            room.event("m.room.message", ALICE, {}, auth=[])
        events = list(room.events.values())
        self.assertEqual(graph.topological_order(reversed(events)), events)


class ForwardExtremities(TestCase):
    def setUp(self) -> None:
        self.room = RoomBuilder("11")

    def add(self, *prev: Event) -> Event:
        return self.room.event("m.room.message", ALICE, {"n": len(self.room.events)}, prev=prev)

    def test_replaced_by_successors(self) -> None:
        """An event replaces what it follows, within the additions too."""
        create = self.room.create
        a = self.add(create)
        b, c = self.add(a), self.add(a)
        d = self.add(b)
        start = {create.event_id}
        self.assertEqual(graph.forward_extremities(start, [a]), {a.event_id})
        self.assertEqual(graph.forward_extremities(start, [c, a, d, b]), {c.event_id, d.event_id})
        self.assertEqual(
            graph.forward_extremities({c.event_id, d.event_id}, [self.add(c, d)]),
            {self.room.heads[-1]},
        )
        self.assertEqual(start, {create.event_id})

    def test_excluded_events(self) -> None:
        """Rejected and soft-failed events neither become extremities nor replace any."""
        create = self.room.create
        bad = self.add(create)
        start = {create.event_id}
        self.assertEqual(graph.forward_extremities(start, [bad], excluded={bad.event_id}), start)
        # An accepted event after it replaces what came before it, whether they come together
        # or one by one.
        worse = self.add(bad)
        good = self.add(worse)
        excluded = {bad.event_id, worse.event_id}
        self.assertEqual(
            graph.forward_extremities(start, [good, bad, worse], excluded=excluded),
            {good.event_id},
        )
        stored = {bad.event_id: bad.prev_event_ids, worse.event_id: worse.prev_event_ids}
        self.assertEqual(
            graph.forward_extremities(
                start, [good], excluded_prev_event_ids=lambda event_id: stored.get(event_id, ())
            ),
            {good.event_id},
        )

    def test_late_events(self) -> None:
        """An event that accepted ones already cite does not become an extremity."""
        create = self.room.create
        late = self.add(create)
        head = self.add(late)
        self.assertEqual(
            graph.forward_extremities(
                {create.event_id, head.event_id}, [late], referenced={late.event_id}
            ),
            {head.event_id},
        )

    @settings(max_examples=60, deadline=None)
    @given(GRAPHS, st.sets(st.integers(1, 30)), st.lists(st.integers(1, 5)))
    def test_batches_do_not_matter(
        self, before: dict[int, list[int]], bad: set[int], sizes: list[int]
    ) -> None:
        """Added one by one or in batches, the extremities are the accepted events that no
        accepted event follows, also not through excluded ones."""
        room = RoomBuilder("11")
        nodes = [room.create]
        for row in before.values():
            prev = [nodes[target] for target in row] or [room.create]
            content = {"n": len(nodes)}
            nodes.append(room.event("m.room.message", ALICE, content, prev=prev, auth=[]))
        excluded = {nodes[node].event_id for node in bad if node < len(nodes)}
        ancestors: set[str] = set()
        for event in nodes:
            if event.event_id not in excluded:
                waiting = list(event.prev_event_ids)
                while waiting:
                    event_id = waiting.pop()
                    if event_id not in ancestors:
                        ancestors.add(event_id)
                        waiting.extend(room.events[event_id].prev_event_ids)
        expected = {event.event_id for event in nodes} - excluded - ancestors
        extremities: set[str] = set()
        done: set[str] = set()
        remaining = list(nodes)
        for size in [*sizes, len(nodes)]:
            batch, remaining = remaining[:size], remaining[size:]
            extremities = graph.forward_extremities(
                extremities,
                batch,
                excluded=excluded,
                excluded_prev_event_ids=lambda event_id: (
                    room.events[event_id].prev_event_ids if event_id in done & excluded else ()
                ),
            )
            done.update(event.event_id for event in batch)
        self.assertEqual(extremities, expected)
