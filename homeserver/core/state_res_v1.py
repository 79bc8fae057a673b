"""State resolution of room version 1.

Room version 1, "State resolution". Known to reset state; version 1 rooms have nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from typing import TypeAlias

from homeserver.core.auth_rules import auth_types, check
from homeserver.core.event import Event
from homeserver.core.rejection import EventRejected
from homeserver.core.state_sets import Events, StateMap
from homeserver.core.types import StateKey

_State: TypeAlias = Callable[[StateKey], Event | None]

_AUTH_TYPES = ("m.room.power_levels", "m.room.join_rules", "m.room.member")


def resolve_conflicts(
    conflicted_sets: Sequence[Mapping[StateKey, str]],
    unconflicted: Mapping[StateKey, str],
    events: Events,
) -> StateMap:
    """Resolve the conflicts between states; see `state_res.resolve_conflicts`."""
    candidates: dict[StateKey, set[str]] = {}
    for conflicted in conflicted_sets:
        for key, event_id in conflicted.items():
            candidates.setdefault(key, set()).add(event_id)
    # Here a key is in conflict only if states have different events for it. What merely is
    # missing from some joins R, the union of the states.
    result = {key: next(iter(ids)) for key, ids in candidates.items() if len(ids) == 1}
    events.fetch(event_id for ids in candidates.values() for event_id in ids)
    conflicts = {}
    for key, ids in candidates.items():
        found = [event for event in map(events.usable, ids) if event is not None]
        if len(ids) > 1 and found:
            conflicts[key] = sorted(found, key=_rank)

    needed = {key for found in conflicts.values() for event in found for key in _auth_keys(event)}
    events.fetch({unconflicted[key] for key in needed if key in unconflicted})

    def state(key: StateKey) -> Event | None:
        event_id = result.get(key) or unconflicted.get(key)
        return None if event_id is None else events.get(event_id)

    for event_type in _AUTH_TYPES:
        # The conflicts of one type do not see each other's outcome, whatever their order.
        result.update(
            {
                key: _resolve_auth_type(ordered, state)
                for key, ordered in conflicts.items()
                if _step_of(key) == event_type
            }
        )
    result.update(
        {
            key: _resolve_other(ordered, state)
            for key, ordered in conflicts.items()
            if _step_of(key) is None
        }
    )
    return result


def _step_of(key: StateKey) -> str | None:
    """Return the type of the pass that a key is resolved in, None for the last one."""
    event_type, state_key = key
    if event_type == "m.room.power_levels":
        return event_type if not state_key else None
    return event_type if event_type in _AUTH_TYPES else None


def _rank(event: Event) -> tuple[int, str]:
    """Order by descending depth, then ascending SHA-1 of the event ID."""
    return -event.depth, sha1(event.event_id.encode(), usedforsecurity=False).hexdigest()


def _resolve_auth_type(ordered: list[Event], state: _State) -> str:
    """Go up from the event of least depth as long as each event allows the next."""
    lowest, *others = reversed(ordered)
    chosen = lowest
    for event in others:
        if not _is_allowed(event, state, chosen):
            break
        chosen = event
    return chosen.event_id


def _resolve_other(ordered: list[Event], state: _State) -> str:
    """Pick the allowed event of greatest depth; if none is allowed, that of least depth."""
    for event in ordered:
        if _is_allowed(event, state):
            return event.event_id
    return ordered[-1].event_id


def _is_allowed(event: Event, state: _State, chosen: Event | None = None) -> bool:
    """Say whether the authorisation rules allow an event in a state, `chosen` added to it."""
    needed: dict[StateKey, Event] = {}
    for key in _auth_keys(event):
        found = chosen if chosen is not None and chosen.key == key else state(key)
        if found is not None:
            needed[key] = found
    try:
        check(event, needed)
    except EventRejected:
        return False
    return True


def _auth_keys(event: Event) -> set[StateKey]:
    return auth_types(event.type, event.sender, event.state_key, event.content, event.version)
