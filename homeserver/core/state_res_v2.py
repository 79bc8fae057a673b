"""State resolution of room versions 2 and up.

Room version 2, "State resolution" (algorithm V2), and room version 12 (V2_1), which changes two
things: the power pass starts from an empty state map, and the conflicted state subgraph belongs
to the full conflicted set. The functions are the definitions and numbered steps of that text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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
        events.fetch(set().union(*id_sets))
        full = auth_chain.full_conflicted_set(
            id_sets, unconflicted.values, events.auth_edges, subgraph=subgraph
        )
    events.fetch(full)
    usable = events.usable
    return {
        event_id: event
        for event_id in full
        if (event := usable(event_id)) is not None and event.is_state
    }


def is_power_event(event: Event) -> bool:
    """Say whether an event might take away somebody's ability to do something."""
    if event.type == "m.room.member":
        return event.membership in ("leave", "ban") and event.sender != event.state_key
    # The create event is not in the definition, but servers have it here. It comes first anyway.
    return event.key in (_POWER_LEVELS, _JOIN_RULES, _CREATE)


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
    events.fetch(auth_id for event in unordered.values() for auth_id in event.auth_event_ids)

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
    events.fetch({auth_id for event in unordered for auth_id in event.auth_event_ids})
    mainline = _Mainline(power_event, events)

    def rank(event: Event) -> tuple[int, int, str]:
        return -mainline.position(event), event.origin_server_ts, event.event_id

    return sorted(unordered, key=rank)


class _Mainline:
    """The mainline of a power-levels event, and the position in it of what cites one of it."""

    def __init__(self, power_event: Event | None, events: Events) -> None:
        self._events = events
        self._is_power_levels: dict[str, bool] = {}
        # The position of every power-levels event met; the mainline is filled in first.
        self._positions: dict[str, int] = {}
        name = None if power_event is None else power_event.event_id
        while name is not None and name not in self._positions:
            self._positions[name] = len(self._positions)
            name = self._cited(events.get(name))
        self._infinity = len(self._positions)

    def position(self, event: Event) -> int:
        """Return the mainline position of an event, and note that of all on the way to it."""
        cited = self._cited(event)
        known = self._infinity if cited is None else self._positions.get(cited)
        if known is not None:
            return known
        passed: list[str] = []
        while cited is not None and cited not in self._positions:
            passed.append(cited)
            # Until it is known; also ends the way if it were to lead in a circle.
            self._positions[cited] = self._infinity
            cited = self._cited(self._events.get(cited))
        position = self._infinity if cited is None else self._positions[cited]
        for event_id in passed:
            self._positions[event_id] = position
        return position

    def _cited(self, event: Event | None) -> str | None:
        """Return the ID of the power-levels event among the auth events of an event."""
        if event is None:
            return None
        known = self._is_power_levels
        for event_id in event.auth_event_ids:
            is_one = known.get(event_id)
            if is_one is None:
                found = self._events.get(event_id)
                is_one = found is not None and found.is_state and found.key == _POWER_LEVELS
                known[event_id] = is_one
            if is_one:
                return event_id
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
    for event in ordered:
        state.event = event
        try:
            check(event, state, create=create)
        except EventRejected as refusal:
            events.note(phase, event, refusal.reason)
            continue
        events.note(phase, event, None)
        state.apply(event)


class _AuthState(Mapping[StateKey, Event]):
    """The state by which the authorisation rules judge `event`, as far as they look at it."""

    event: Event

    def __init__(self, resolved: StateMap, base: Mapping[StateKey, str], events: Events) -> None:
        self._resolved = resolved
        self._base = base
        self._events = events
        # What the state has by now under the keys that were looked at, None for nothing.
        self._known: dict[StateKey, Event | None] = {}
        # Events that were named, None for what cannot be part of a state.
        self._usable: dict[str, Event | None] = {}

    def fetch(self, ordered: Iterable[Event]) -> None:
        """Fetch what judging these events takes, as far as that can be told, many at once."""
        keys: set[StateKey] = {("m.room.member", event.sender) for event in ordered}
        keys.update((_CREATE, _POWER_LEVELS, _JOIN_RULES))
        names = (self._resolved.get(key) or self._base.get(key) for key in keys)
        self._events.fetch([name for name in names if name is not None])

    def apply(self, event: Event) -> None:
        """Go on with the state after an event that is allowed."""
        self._resolved[event.key] = event.event_id
        self._known[event.key] = event

    def get(self, key: StateKey, default: Any = None) -> Any:
        """Return what the state has under a key, or else what the event itself names for it."""
        found = self._known.get(key)
        if found is None and key not in self._known:
            name = self._resolved.get(key) or self._base.get(key)
            found = None if name is None else self._events.usable(name)
            self._known[key] = found
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
