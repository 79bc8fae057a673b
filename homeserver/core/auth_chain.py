"""Auth chains, and what state resolution asks about them.

Here the auth chain of an event holds the event itself. For the chain of a state the
specification does not say so, but servers agree on it, and the result of a resolution can
depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeAlias

from homeserver.core.state_sets import Events

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
        level = {event_id for event_id in below if event_id not in graph}
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
    level = set(unconflicted) - shared if difference else set()
    seen = shared | level
    while level:
        difference -= level
        if not difference:
            break
        below = {auth_id for _, auth_ids in events.auth_edges(level) for auth_id in auth_ids}
        level = below - seen
        seen |= level
    return difference


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
