"""Auth chains, and what state resolution asks about them.

Here the auth chain of an event holds the event itself. For the chain of a state the
specification does not say so, but servers agree on it, and the result of a resolution can
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Protocol, TypeVar

NodeT = TypeVar("NodeT", str, int)
"""An event, by its ID or by its number."""


class AuthEdges(Protocol[NodeT]):
    """The auth events of events. What is not known has none."""

    def auth_edges(self, nodes: Set[NodeT]) -> Mapping[NodeT, Sequence[NodeT]]:
        """Those of each of these that is known."""

    def auth_nodes(self, nodes: Collection[NodeT]) -> set[NodeT]:
        """Those of all of these together: a set of the caller's own."""


def full_conflicted_set(
    conflicted_sets: Sequence[Set[NodeT]],
    unconflicted: Callable[[], Iterable[NodeT]],
    edges: AuthEdges[NodeT],
    *,
    subgraph: bool,
) -> set[NodeT]:
    """Return the full conflicted set of states.

    The states are given by their conflicted events, and by those that all of them share (each
    once), which are asked for only if they matter. `subgraph` says whether the conflicted state
    subgraph belongs to it.
    """
    conflicted: set[NodeT] = set().union(*conflicted_sets)
    graph = auth_graph(conflicted, edges)
    full = conflicted | auth_difference(conflicted_sets, unconflicted, graph, edges)
    if subgraph:
        full |= conflicted_subgraph(conflicted, graph)
    return full


def auth_graph(nodes: Iterable[NodeT], edges: AuthEdges[NodeT]) -> dict[NodeT, Sequence[NodeT]]:
    """Return the auth events of every known event in the auth chains of `nodes`."""
    graph: dict[NodeT, Sequence[NodeT]] = {}
    level = set(nodes)
    seen = set(level)
    while level:
        found = edges.auth_edges(level)
        graph.update(found)
        level = set().union(*found.values())
        level -= seen
        seen |= level
    return graph


def auth_difference(
    conflicted_sets: Sequence[Set[NodeT]],
    unconflicted: Callable[[], Iterable[NodeT]],
    graph: Mapping[NodeT, Sequence[NodeT]],
    edges: AuthEdges[NodeT],
) -> set[NodeT]:
    """Return the events that are in the auth chain of some of the states, but not of all.

    The states are given as in `full_conflicted_set`. `graph` is the auth graph of all conflicted
    events. Conflicted events are left out, because they belong to the full conflicted set anyway.
    """
    chains = [reachable(nodes, graph) for nodes in conflicted_sets]
    shared = set.intersection(*chains)
    difference = set.union(*chains).difference(shared, *conflicted_sets)
    # These are in the chains of the conflicted events of some states only. They may still be in
    # the chain of an unconflicted event, and so of every state. That takes a look at all of
    # them, and so it is done only if there is something to find.
    if difference:
        difference -= chain_among(unconflicted(), difference, shared, edges)
    return difference


def chain_among(
    nodes: Iterable[NodeT],
    wanted: Set[NodeT],
    passed: Set[NodeT],
    edges: AuthEdges[NodeT],
) -> set[NodeT]:
    """Return those `wanted` that are in the auth chain of some events, these included.

    `nodes` has each event once. `passed` is a set that is closed under auth events and has none
    that is wanted: what is in it is not looked at.
    """
    first = [node for node in nodes if node not in passed]
    found = set(wanted).intersection(first)
    # What is in `first` is read once more if it is named, which changes nothing.
    seen = set(passed)
    level = edges.auth_nodes(first)
    while len(found) < len(wanted):
        level -= seen
        if not level:
            break
        found |= level & wanted
        seen |= level
        level = edges.auth_nodes(level)
    return found


def conflicted_subgraph(
    conflicted: Set[NodeT], graph: Mapping[NodeT, Sequence[NodeT]]
) -> set[NodeT]:
    """Return the events on auth paths between events of `conflicted`, these included.

    Room version 12, "Conflicted state subgraph". `graph` is the auth graph of `conflicted`.
    """
    # All of the graph can be reached from a conflicted event. So what lies between two is what
    # a conflicted event can be reached from. Mostly nothing cites one but others of them.
    apart = conflicted.isdisjoint
    if all(map(apart, [auths for node, auths in graph.items() if node not in conflicted])):
        return set(conflicted)
    # Follow the edges backwards.
    cited_by: dict[NodeT, list[NodeT]] = {}
    for node, auth_nodes in graph.items():
        # Those of `conflicted` are where it starts, and need not be found.
        if node not in conflicted:
            for auth_node in auth_nodes:
                cited_by.setdefault(auth_node, []).append(node)
    return reachable(conflicted, cited_by)


def reachable(nodes: Iterable[NodeT], graph: Mapping[NodeT, Sequence[NodeT]]) -> set[NodeT]:
    """Return what can be reached along the edges of a graph, the starting points included."""
    found = set(nodes)
    level = set(found)
    while level:
        level = set().union(*[auths for auths in map(graph.get, level) if auths])
        level -= found
        found |= level
    return found
