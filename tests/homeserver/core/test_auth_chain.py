"""Tests of auth chains."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import auth_chain
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.state_sets import Events, GetEvents
from tests.homeserver.core.resolution_fixtures import quick_event
from tests.support.events import ALICE

GRAPHS = st.lists(st.sets(st.integers(0, 25), max_size=4), min_size=1, max_size=25)
NODES = st.sets(st.integers(0, 24), max_size=8)


def events_of(rows: list[set[int]]) -> dict[str, Event]:
    """One event for each row, which cites earlier ones."""
    version = ROOM_VERSIONS["11"]
    return {
        f"${number}": quick_event(
            f"${number}",
            version,
            ("t", str(number)),
            ALICE,
            {},
            # Some are named twice.
            [f"${target}" for target in [*sorted(row), *sorted(row)[:1]] if target < number],
        )
        for number, row in enumerate(rows)
    }


def chain_of(event_id: str, events: dict[str, Event]) -> set[str]:
    """The auth chain of an event, the event included."""
    chain: set[str] = set()
    waiting = [event_id]
    while waiting:
        name = waiting.pop()
        chain.add(name)
        if name in events:
            waiting.extend(set(events[name].auth_event_ids) - chain)
    return chain


def fetching(known: Mapping[str, Event]) -> GetEvents:
    """Many events at once."""
    return lambda names: {name: known[name] for name in names if name in known}


class Numbered:
    """Auth events by number, all of which are known."""

    def __init__(self, edges: Mapping[int, tuple[int, ...]]) -> None:
        self.edges = edges

    def auth_edges(self, nodes: Set[int]) -> dict[int, tuple[int, ...]]:
        return {node: self.edges[node] for node in nodes}

    def auth_nodes(self, nodes: Collection[int]) -> set[int]:
        return {auth for node in nodes for auth in self.edges[node]}


class AuthChain(TestCase):
    @settings(max_examples=200, deadline=None)
    @given(GRAPHS, st.lists(NODES, min_size=2, max_size=4), NODES, NODES, st.booleans())
    def test_auth_difference(
        self,
        rows: list[set[int]],
        conflicted: list[set[int]],
        shared: set[int],
        unknown: set[int],
        many: bool,
    ) -> None:
        """Shows RES-2. The difference is the union of the auth chains less what all have, however
        events are fetched; those that are not known are the ends of chains."""
        known = events_of(rows)
        for number in unknown:
            known.pop(f"${number}", None)
        sets = [{f"${n}" for n in nodes if n < len(rows)} for nodes in conflicted]
        unconflicted = {f"${n}" for n in shared if n < len(rows)}
        chains: list[set[str]] = [
            set[str]().union(*(chain_of(event_id, known) for event_id in ids | unconflicted))
            for ids in sets
        ]
        conflicts = set[str]().union(*sets)
        expected = set[str]().union(*chains) - chains[0].intersection(*chains) - conflicts
        events = Events(known.get, fetching(known) if many else None)
        graph = auth_chain.auth_graph(conflicts, events)
        found = auth_chain.auth_difference(sets, lambda: unconflicted, graph, events)
        self.assertEqual(found, expected)

    @settings(max_examples=200, deadline=None)
    @given(GRAPHS, st.lists(NODES, min_size=2, max_size=4), NODES, st.booleans())
    def test_by_numbers(
        self, rows: list[set[int]], conflicted: list[set[int]], shared: set[int], subgraph: bool
    ) -> None:
        """Shows RES-2, RES-8. The full conflicted set is the same by numbers as by event IDs."""
        known = events_of(rows)
        sets = [{n for n in nodes if n < len(rows)} for nodes in conflicted]
        rest = {n for n in shared if n < len(rows)}
        edges = {
            int(name[1:]): tuple(int(auth_id[1:]) for auth_id in event.auth_event_ids)
            for name, event in known.items()
        }
        by_number = auth_chain.full_conflicted_set(
            sets, lambda: rest, Numbered(edges), subgraph=subgraph
        )
        by_id = auth_chain.full_conflicted_set(
            [{f"${n}" for n in nodes} for nodes in sets],
            lambda: {f"${n}" for n in rest},
            Events(known.get),
            subgraph=subgraph,
        )
        self.assertEqual(by_id, {f"${n}" for n in by_number})

    @settings(max_examples=200, deadline=None)
    @given(GRAPHS, NODES)
    def test_conflicted_subgraph(self, rows: list[set[int]], nodes: set[int]) -> None:
        """Shows RES-8. The subgraph is what lies on a path from one to another, ends included."""
        known = events_of(rows)
        conflicted = {f"${n}" for n in nodes if n < len(rows)}
        expected = {
            event_id
            for start in conflicted
            for event_id in chain_of(start, known)
            if chain_of(event_id, known) & conflicted
        }
        graph = auth_chain.auth_graph(conflicted, Events(known.get))
        self.assertEqual(auth_chain.conflicted_subgraph(conflicted, graph), expected)

    def test_unknown_events(self) -> None:
        """Unknown events are part of a chain, which ends there."""
        known = events_of([set(), {0}, {1}])
        del known["$1"]
        graph = auth_chain.auth_graph({"$2"}, Events(known.get))
        self.assertEqual(graph, {"$2": known["$2"].auth_event_ids})
        self.assertEqual(auth_chain.reachable({"$2"}, graph), {"$2", "$1"})

    def test_unconflicted_events_are_left_alone(self) -> None:
        """Where the chains of conflicts agree, unconflicted events are not looked at."""
        known = events_of([set(), {0}, {0, 1}, {0, 1}, {0}])
        asked: list[str] = []

        def get_event(event_id: str) -> Event | None:
            asked.append(event_id)
            return known.get(event_id)

        events = Events(get_event)
        sets = [{"$2"}, {"$3"}]
        graph = auth_chain.auth_graph({"$2", "$3"}, events)
        found = auth_chain.auth_difference(sets, lambda: ["$4"], graph, events)
        self.assertEqual(found, set())
        self.assertEqual(sorted(asked), ["$0", "$1", "$2", "$3"])
