"""The event graph: topological order, forward extremities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence, Set
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import Any, TypeVar

from homeserver.core.event import Event

NodeT = TypeVar("NodeT")


def lexicographical_topological_sort(
    before: Mapping[NodeT, Iterable[NodeT]], key: Callable[[NodeT], Any]
) -> list[NodeT]:
    """Return the lexicographically smallest topological ordering of a graph.

    `before` maps each node to the nodes that must come before it; those that are no keys of it
    do not count. Kahn's algorithm: of all nodes that could come next, the one with the smallest
    `key` does. Keys must differ. Nodes on a cycle, and those after one, are left out.
    """
    after: dict[NodeT, list[NodeT]] = {}
    waits_for: dict[NodeT, int] = {}
    for node, others in before.items():
        distinct = {other for other in others if other in before}
        waits_for[node] = len(distinct)
        for other in distinct:
            after.setdefault(other, []).append(node)
    ready = [(key(node), node) for node, number in waits_for.items() if not number]
    heapify(ready)
    order: list[NodeT] = []
    while ready:
        _, node = heappop(ready)
        order.append(node)
        for other in after.get(node, ()):
            waits_for[other] -= 1
            if not waits_for[other]:
                heappush(ready, (key(other), other))
    return order


def topological_order(events: Iterable[Event]) -> list[Event]:
    """Return events so that each comes after those of them that it cites.

    Citations are `prev_events` and `auth_events`. Ties go by depth, time, event ID. Events on a
    cycle, which only rooms of versions 1 and 2 could have, are left out.
    """
    by_id = {event.event_id: event for event in events}

    def rank(event_id: str) -> tuple[int, int, str]:
        event = by_id[event_id]
        return event.depth, event.origin_server_ts, event_id

    ranked = sorted(by_id.values(), key=_RANK)
    if _cites_only_earlier(ranked, by_id.keys()):
        # As it mostly is. Of all orders this is the smallest, so that it is the wanted one.
        return ranked
    before = {
        event_id: (*event.prev_event_ids, *event.auth_event_ids)
        for event_id, event in by_id.items()
    }
    return [by_id[event_id] for event_id in lexicographical_topological_sort(before, rank)]


_RANK = attrgetter("depth", "origin_server_ts", "event_id")


def _cites_only_earlier(events: Sequence[Event], names: Set[str]) -> bool:
    """Whether what each event cites of `names`, which are theirs, stands before it."""
    later = set(names)
    for event in events:
        # Itself included.
        if not later.isdisjoint(event.prev_event_ids) or not later.isdisjoint(event.auth_event_ids):
            return False
        later.discard(event.event_id)
    return True


def forward_extremities(
    current: Collection[str],
    added: Iterable[Event],
    *,
    excluded: Container[str] = (),
    referenced: Container[str] = (),
    excluded_prev_event_ids: Callable[[str], Sequence[str]] | None = None,
) -> set[str]:
    """Return the forward extremities of a room after adding events.

    `current` are the extremities before. `excluded` are the rejected and soft-failed ones among
    `added`: they never become extremities, and do not replace any. `referenced` are those among
    `added` that accepted events stored earlier already cite, which happens when events arrive
    late. `excluded_prev_event_ids` gives the `prev_events` of events that were stored as
    rejected or soft-failed, and nothing for others: an accepted event after such a one replaces
    what lies before it. Server-server API, "Soft failure".
    """
    events = {event.event_id: event for event in added}
    accepted = [event for event_id, event in events.items() if event_id not in excluded]
    extremities = set(current)
    extremities.update(event.event_id for event in accepted if event.event_id not in referenced)
    seen: set[str] = set()
    waiting = [event_id for event in accepted for event_id in event.prev_event_ids]
    while waiting:
        event_id = waiting.pop()
        if event_id in seen:
            continue
        seen.add(event_id)
        if event_id in events:
            # An accepted one of these stands in `accepted` itself.
            if event_id in excluded:
                waiting.extend(events[event_id].prev_event_ids)
        elif excluded_prev_event_ids is not None:
            waiting.extend(excluded_prev_event_ids(event_id))
    return extremities - seen
