"""Auth chains, and what state resolution asks about them.

Here the auth chain of an event holds the event itself. For the chain of a state the
specification does not say so, but servers agree on it, and the result of a resolution can
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TypeAlias, TypeVar

from homeserver.core.state_sets import Events

NodeT = TypeVar("NodeT", str, int)

AuthGraph: TypeAlias = Mapping[str, tuple[str, ...]]
"""Event ID to the IDs of its auth events."""


def auth_graph(event_ids: Iterable[str], events: Events) -> dict[str, tuple[str, ...]]:
    """Return the auth events of every event in the auth chains of `event_ids`."""
    graph: dict[str, tuple[str, ...]] = {}
    level = set(event_ids)
    while level:
        events.fetch(level)
        below: set[str] = set()
        for event_id in level:
            event = events.get(event_id)
            graph[event_id] = auth_ids = () if event is None else event.auth_event_ids
            below.update(auth_ids)
        below.difference_update(graph)
        level = below
    return graph


def auth_difference(
    conflicted_sets: Sequence[Set[str]],
    unconflicted: Iterable[str],
    graph: AuthGraph,
    events: Events,
) -> set[str]:
    """Return the events that are in the auth chain of some of the states, but not of all.

    The states are given by the IDs of their conflicted events, and of those that all of them
    share. `graph` is the auth graph of all conflicted events. Conflicted events are left out,
    because they belong to the full conflicted set anyway.
    """
    chains = [reachable(event_ids, graph) for event_ids in conflicted_sets]
    shared = set.intersection(*chains)
    difference = set.union(*chains).difference(shared, *conflicted_sets)
    # These are in the chains of the conflicted events of some states only. They may still be in
    # the chain of an unconflicted event, and so of every state. That takes a look at all of
    # them, and so it is done only if there is something to find.
    if difference and events.shared_chain is not None:
        difference -= events.shared_chain(difference, shared)
    elif difference:
        difference -= chain_among(unconflicted, difference, shared, events.auth_edges)
    return difference


def chain_among(
    event_ids: Iterable[NodeT],
    wanted: Set[NodeT],
    passed: Set[NodeT],
    auth_edges: Callable[[Set[NodeT]], Iterable[Iterable[NodeT]]],
) -> set[NodeT]:
    """Return those `wanted` that are in the auth chain of some events, these included.

    `passed` is a set that is closed under auth events and has none that is wanted: what is in it
    is not looked at. `auth_edges` gives the auth events of each of some events.
    """
    level = set(event_ids)
    level.difference_update(passed)
    seen = level.union(passed)
    found = level & wanted
    while level and len(found) < len(wanted):
        below: set[NodeT] = set()
        below.update(*auth_edges(level))
        level = below - seen
        seen |= level
        found |= level & wanted
    return found


def conflicted_subgraph(conflicted: Set[str], graph: AuthGraph) -> set[str]:
    """Return the events on auth paths between events of `conflicted`, these included.

    Room version 12, "Conflicted state subgraph". `graph` is the auth graph of `conflicted`.
    """
    # All of the graph can be reached from a conflicted event. So what lies between two is what
    # a conflicted event can be reached from: follow the edges backwards.
    cited_by: dict[str, list[str]] = {}
    for event_id, auth_ids in graph.items():
        for auth_id in auth_ids:
            cited_by.setdefault(auth_id, []).append(event_id)
    return reachable(conflicted, cited_by)


def reachable(event_ids: Iterable[str], graph: Mapping[str, Sequence[str]]) -> set[str]:
    """Return what can be reached along the edges of a graph, the starting points included."""
    found = set(event_ids)
    waiting = list(found)
    while waiting:
        for other in graph.get(waiting.pop(), ()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
