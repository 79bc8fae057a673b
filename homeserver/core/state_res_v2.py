"""State resolution of room versions 2 and up.

Room version 2, "State resolution" (algorithm V2), and room version 12 (V2_1), which changes two
things: the power pass starts from an empty state map, and the conflicted state subgraph belongs
to the full conflicted set. The functions are the definitions and numbered steps of that text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from operator import attrgetter
from typing import Any

from homeserver.core import auth_chain
from homeserver.core.auth_rules import check
from homeserver.core.event import Event
from homeserver.core.graph import lexicographical_topological_sort
from homeserver.core.power_levels import PowerLevels
from homeserver.core.rejection import EventRejected
from homeserver.core.room_versions import RoomVersion, StateRes
from homeserver.core.state_sets import Events, StateMap
from homeserver.core.types import StateKey

_CREATE = ("m.room.create", "")
_POWER_LEVELS = ("m.room.power_levels", "")
_JOIN_RULES = ("m.room.join_rules", "")
_POWER_KEYS = frozenset((_CREATE, _POWER_LEVELS, _JOIN_RULES))
_OUT = ("leave", "ban")
_NO_POSITION = -1


def resolve_conflicts(
    conflicted_sets: Sequence[Mapping[StateKey, str]],
    unconflicted: Mapping[StateKey, str],
    events: Events,
    version: RoomVersion,
) -> StateMap:
    """Resolve the conflicts between states; see `state_res.resolve_conflicts`."""
    conflicted = full_conflicted_set(conflicted_sets, unconflicted, events, version)
    create = _create_event(conflicted.values(), events, version)
    # 1.
    power_events = reverse_topological_power_ordering(
        _power_events_and_chains(conflicted), events, create
    )
    # 2.
    base = {} if version.state_res is StateRes.V2_1 else unconflicted
    resolved: StateMap = {}
    iterative_auth_checks(power_events, resolved, base, events, create, phase="power")
    # 3.
    picked = {event.event_id for event in power_events}
    power_id = resolved.get(_POWER_LEVELS) or base.get(_POWER_LEVELS)
    others = mainline_ordering(
        [event for event_id, event in conflicted.items() if event_id not in picked],
        None if power_id is None else events.get(power_id),
        events,
    )
    # 4.
    iterative_auth_checks(others, resolved, base, events, create, phase="others")
    # 5.
    return {key: event_id for key, event_id in resolved.items() if key not in unconflicted}


def full_conflicted_set(
    conflicted_sets: Sequence[Mapping[StateKey, str]],
    unconflicted: Mapping[StateKey, str],
    events: Events,
    version: RoomVersion,
) -> dict[str, Event]:
    """Return the full conflicted set by event ID.

    Events that are not known, or were rejected against their auth events, are left out.
    """
    id_sets = [set(conflicted.values()) for conflicted in conflicted_sets]
    subgraph = version.state_res is StateRes.V2_1
    full: Set[str]
    if events.full_conflicted_set is not None:
        full = events.full_conflicted_set(id_sets, subgraph)
    else:
        events.fetch(chain.from_iterable(id_sets))
        full = auth_chain.full_conflicted_set(
            id_sets, unconflicted.values, events, subgraph=subgraph
        )
    events.fetch(full)
    found = zip(full, map(events.usable, full), strict=True)
    return {name: event for name, event in found if event is not None and event.is_state}


def is_power_event(event: Event) -> bool:
    """Say whether an event might take away somebody's ability to do something."""
    # Only member events have a membership.
    if event.membership in _OUT:
        return event.sender != event.state_key
    # The create event is not in the definition, but servers have it here. It comes first anyway.
    return event.state_key == "" and event.key in _POWER_KEYS


def _power_events_and_chains(conflicted: Mapping[str, Event]) -> dict[str, Event]:
    """Return the power events, and what of their auth chains is in the full conflicted set.

    Like other servers, this does not look for conflicted events beyond ones that are not.
    """
    picked = {event_id: event for event_id, event in conflicted.items() if is_power_event(event)}
    waiting = list(picked.values())
    while waiting:
        for auth_id in waiting.pop().auth_event_ids:
            if auth_id in conflicted and auth_id not in picked:
                picked[auth_id] = conflicted[auth_id]
                waiting.append(conflicted[auth_id])
    return picked


def reverse_topological_power_ordering(
    unordered: Mapping[str, Event], events: Events, create: Event | None = None
) -> list[Event]:
    """Order events by their auth edges; ties by power of the sender, time, event ID.

    `create` is the create event in room versions whose auth events do not name it.
    """
    events.fetch_auth(unordered.values())

    def rank(event_id: str) -> tuple[int, int, str]:
        event = unordered[event_id]
        return -_sender_power(event, events, create), event.origin_server_ts, event_id

    before = {event_id: event.auth_event_ids for event_id, event in unordered.items()}
    return [unordered[event_id] for event_id in lexicographical_topological_sort(before, rank)]


def _sender_power(event: Event, events: Events, create: Event | None) -> int:
    """Return the power level of the sender of an event according to its own auth events."""
    power_event = None
    for auth_event in events.auth_events(event):
        if auth_event.is_create:
            create = auth_event
        elif auth_event.is_state and auth_event.key == _POWER_LEVELS:
            power_event = auth_event
    if create is not None:
        return PowerLevels.of(power_event, create).user_level(event.sender)
    content = None if power_event is None else power_event.content
    return PowerLevels(event.version, frozenset(), content).user_level(event.sender)


def mainline_ordering(
    unordered: Iterable[Event], power_event: Event | None, events: Events
) -> list[Event]:
    """Order events by their mainline position based on a power-levels event, time, event ID.

    Events that are based on earlier power levels come first.
    """
    unordered = list(unordered)
    events.fetch_auth(unordered)
    # One sort for each: comparing single values is much less than comparing tuples.
    ordered = sorted(unordered, key=attrgetter("event_id"))
    ordered.sort(key=attrgetter("origin_server_ts"))
    ordered.sort(key=_Mainline(power_event, events).position, reverse=True)
    return ordered


class _Mainline:
    """The mainline of a power-levels event, and the position in it of what cites one of it."""

    def __init__(self, power_event: Event | None, events: Events) -> None:
        self._events = events
        # The position of every power-levels event met; the mainline is filled in first. Of other
        # events it says that they are none.
        self._positions: dict[str, int] = {}
        length = 0
        event = power_event
        while event is not None and event.event_id not in self._positions:
            self._positions[event.event_id] = length
            length += 1
            event = self._cited(event)
        self._infinity = length

    def position(self, event: Event) -> int:
        """Return the mainline position of an event, and note that of all on the way to it."""
        positions = self._positions
        for event_id in event.auth_event_ids:
            position = positions.get(event_id)
            if position is None:
                position = self._find(event_id)
            if position != _NO_POSITION:
                return position
        return self._infinity

    def _find(self, event_id: str) -> int:
        """Return the position of an event that was not met before, or that it has none."""
        positions = self._positions
        event = self._power_levels(event_id)
        if event is None:
            return _NO_POSITION
        passed: list[str] = []
        while event is not None and event.event_id not in positions:
            passed.append(event.event_id)
            # Until it is known; also ends the way if it were to lead in a circle.
            positions[event.event_id] = self._infinity
            event = self._cited(event)
        position = self._infinity if event is None else positions[event.event_id]
        for name in passed:
            positions[name] = position
        return position

    def _cited(self, event: Event) -> Event | None:
        """Return the power-levels event among the auth events of an event."""
        for event_id in event.auth_event_ids:
            if self._positions.get(event_id) != _NO_POSITION:
                found = self._power_levels(event_id)
                if found is not None:
                    return found
        return None

    def _power_levels(self, event_id: str) -> Event | None:
        """Return an event if it is one with power levels; otherwise that is noted."""
        found = self._events.get(event_id)
        if found is not None and found.is_state and found.key == _POWER_LEVELS:
            return found
        self._positions[event_id] = _NO_POSITION
        return None


def iterative_auth_checks(
    ordered: Sequence[Event],
    resolved: StateMap,
    base: Mapping[StateKey, str],
    events: Events,
    create: Event | None = None,
    phase: str = "",
) -> None:
    """Apply to a state those events that the authorisation rules allow, in order.

    The state is `resolved`, which changes, on top of `base`. A key that is needed and not there
    is taken from the event's own auth events.
    """
    state = _AuthState(resolved, base, events)
    state.fetch(ordered)
    known, explains = state.known, events.explains
    for event in ordered:
        state.event = event
        try:
            # What is known is what the state would be asked for.
            check(event, state, create=create or known.get(_CREATE))
        except EventRejected as refusal:
            if explains:
                events.note(phase, event, refusal.reason)
            continue
        if explains:
            events.note(phase, event, None)
        # On with the state after it.
        key = event.key
        resolved[key] = event.event_id
        known[key] = event


class _AuthState(Mapping[StateKey, Event]):
    """The state by which the authorisation rules judge `event`, as far as they look at it."""

    event: Event

    def __init__(self, resolved: StateMap, base: Mapping[StateKey, str], events: Events) -> None:
        self._resolved = resolved
        self._base = base
        self._events = events
        self.known: dict[StateKey, Event | None] = {}
        """What the state has by now under the keys that were looked at, None for nothing."""
        # Events that were named, None for what cannot be part of a state.
        self._usable: dict[str, Event | None] = {}

    def fetch(self, ordered: Iterable[Event]) -> None:
        """Fetch what judging these events takes, as far as that can be told, many at once."""
        if not self._events.fetches:
            return
        keys: set[StateKey] = {("m.room.member", event.sender) for event in ordered}
        keys.update((_CREATE, _POWER_LEVELS, _JOIN_RULES))
        names = (self._resolved.get(key) or self._base.get(key) for key in keys)
        self._events.fetch([name for name in names if name is not None])

    def get(self, key: StateKey, default: Any = None) -> Any:
        """Return what the state has under a key, or else what the event itself names for it."""
        known = self.known
        found = known.get(key)
        if found is not None:
            return found
        if key not in known:
            name = self._resolved.get(key) or self._base.get(key)
            found = known[key] = None if name is None else self._events.usable(name)
        return found or self._named(key) or default

    def _named(self, key: StateKey) -> Event | None:
        usable = self._usable
        for event_id in reversed(self.event.auth_event_ids):
            if event_id in usable:
                found = usable[event_id]
            else:
                found = self._events.usable(event_id)
                if found is not None and not found.is_state:
                    found = None
                usable[event_id] = found
            if found is not None and found.key == key:
                return found
        return None

    def __getitem__(self, key: StateKey) -> Event:
        found: Event | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[StateKey]:
        return iter({**self._base, **self._resolved})

    def __len__(self) -> int:
        return len(self._base.keys() | self._resolved.keys())


def _create_event(
    conflicted: Iterable[Event], events: Events, version: RoomVersion
) -> Event | None:
    """Return the create event where the room ID names it; otherwise auth events do."""
    if not version.room_id_is_create_hash:
        return None
    for event in conflicted:
        return events.get("$" + event.room_id[1:])
    return None
