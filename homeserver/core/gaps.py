"""Which events of a room are missing, and which answers close a gap: decisions on plain data.

Server-Server API, "Backfilling and retrieving missing events". Nothing here recurses: what other
servers send may be as deep as it likes, or go round in circles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Protocol

from homeserver.core.auth_rules import check
from homeserver.core.event import Event
from homeserver.core.rejection import EventRejected
from homeserver.core.types import StateKey

CREATE: StateKey = ("m.room.create", "")
POWER_LEVELS: StateKey = ("m.room.power_levels", "")


def edge(events: Mapping[str, Event], placed: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The predecessors that are neither among `events` nor `placed` (in the room's graph here),
    by the event that names them."""
    found = {}
    for event_id, event in events.items():
        missing = tuple(
            dict.fromkeys(
                name for name in event.prev_event_ids if name not in events and name not in placed
            )
        )
        if missing:
            found[event_id] = missing
    return found


def ancestors(wanted: Iterable[str], events: Iterable[Event]) -> dict[str, Event]:
    """Those of `events` that are `wanted`, or come before one of these through `events`.

    Whatever else somebody sent has nothing to do with the question.
    """
    offered = {event.event_id: event for event in events}
    found: dict[str, Event] = {}
    waiting = list(wanted)
    while waiting:
        event_id = waiting.pop()
        event = offered.get(event_id)
        if event is None or event_id in found:
            continue
        found[event_id] = event
        waiting.extend(event.prev_event_ids)
    return found


def auth_chain(wanted: Iterable[str], events: Mapping[str, Event]) -> dict[str, Event]:
    """Those of `events` that are `wanted`, or in the auth chain of one of these."""
    found = {name: events[name] for name in wanted if name in events}
    waiting = list(auth_ids(found.values()).difference(found))
    # Most events of a large room name the same few.
    followed: set[tuple[str, ...]] = set()
    while waiting:
        event_id = waiting.pop()
        event = events.get(event_id)
        if event is None or event_id in found:
            continue
        found[event_id] = event
        below = event.auth_event_ids
        if below not in followed:
            followed.add(below)
            waiting.extend(below)
    return found


def missing_auth(events: Mapping[str, Event], stored: Collection[str]) -> set[str]:
    """Auth events of `events` that are neither among them nor `stored`."""
    return {name for name in auth_ids(events.values()) if name not in events and name not in stored}


def auth_ids(events: Iterable[Event]) -> set[str]:
    """All that these events name as their auth events."""
    return set(chain.from_iterable({event.auth_event_ids for event in events}))


def complete_by_auth(events: Mapping[str, Event], stored: Collection[str]) -> list[Event]:
    """Those of `events` whose auth chains are there, auth events before what they authorise.

    A chain is there if it ends in events that are `stored` or that have no auth events. Events
    on a circle, and those that rest on one, are left out.
    """
    waiting: dict[str, int] = {}
    dependants: dict[str, list[str]] = {}
    ready = []
    lacking: dict[tuple[str, ...], set[str]] = {}
    for event_id, event in events.items():
        missing = lacking.get(event.auth_event_ids)
        if missing is None:
            missing = {name for name in event.auth_event_ids if name not in stored}
            lacking[event.auth_event_ids] = missing
        waiting[event_id] = len(missing)
        for name in missing:
            dependants.setdefault(name, []).append(event_id)
        if not missing:
            ready.append(event_id)
    done: list[Event] = []
    # Whatever is ready is gone through in the order in which it became so.
    for event_id in ready:
        done.append(events[event_id])
        for dependant in dependants.get(event_id, ()):
            waiting[dependant] -= 1
            if not waiting[dependant]:
                ready.append(dependant)
    return done


class Claim(Protocol):
    """An event of a state that somebody claims."""

    @property
    def event_id(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def state_key(self) -> str | None: ...


def why_unusable(
    event: Event,
    state: Iterable[Claim],
    relevant: Mapping[StateKey, Event],
    *,
    create_id: str | None,
    had_power_levels: bool,
) -> str | None:
    """Why a state that somebody says came before `event` cannot be believed; None if it can.

    Parameters: `relevant` are the state's events that authorise the event, and its create event;
    `create_id` is the create event of the room as it is known here, None if it is not;
    `had_power_levels`, whether power levels are in the auth chains of the event or of the state.

    The state must be a state, be this room's, have the power levels if the room ever had any,
    and allow the event: somebody who says otherwise could have a right event rejected for good.
    """
    by_key: dict[StateKey, str] = {}
    for item in state:
        if item.state_key is None:
            return f"{item.event_id} is not a state event"
        key = (item.type, item.state_key)
        if by_key.setdefault(key, item.event_id) != item.event_id:
            return f"it has two events of {key}"
    if CREATE not in by_key or CREATE not in relevant:
        return "it has no create event"
    if create_id is not None and by_key[CREATE] != create_id:
        return "its create event is not the room's"
    if had_power_levels and POWER_LEVELS not in by_key:
        return "it has no power levels"
    try:
        check(event, relevant, create=relevant[CREATE])
    except EventRejected as error:
        return f"it does not allow the event: {error.reason}"
    return None
