"""What all state resolution algorithms share: state maps, and the events behind them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import NamedTuple, TypeAlias

from homeserver.core.event import Event
from homeserver.core.types import StateKey

StateMap: TypeAlias = dict[StateKey, str]
"""Room state: (type, state key) to event ID."""

GetEvent: TypeAlias = Callable[[str], Event | None]
GetEvents: TypeAlias = Callable[[Collection[str]], Mapping[str, Event]]
FullConflictedSet: TypeAlias = Callable[[Sequence[Set[str]], bool], Set[str]]

_BATCH = 500


class Step(NamedTuple):
    """One look at an event during a resolution: applied, unless there is a reason against it."""

    phase: str
    """`power` events come first, then `others` (room version 2)."""
    event: Event
    refusal: str | None


class Events:
    """The events of one room during one resolution.

    `get_event` gives an event by ID, None if it is not known. `get_events`, if given, fetches
    many at once, each once; without it `get_event` has to be quick, as nothing is kept here.
    `is_rejected` says whether an event was rejected against its own auth events, which takes it
    out of state resolution; an event rejected only against the state before it must not count
    (room version 2, "Rejected events"). `full_conflicted_set(sets, subgraph)`, if given, does
    what `auth_chain.full_conflicted_set` does. `steps`, if given, is told by versions 2 and up
    what they looked at, in order.
    """

    def __init__(
        self,
        get_event: GetEvent,
        get_events: GetEvents | None = None,
        is_rejected: Callable[[str], bool] | None = None,
        full_conflicted_set: FullConflictedSet | None = None,
        steps: list[Step] | None = None,
    ) -> None:
        self.full_conflicted_set = full_conflicted_set
        self.get: GetEvent = get_event if get_events is None else self._get_kept
        """Returns an event, None if it is not known."""
        self.usable: GetEvent = self.get if is_rejected is None else self._get_usable
        """Returns an event, None if it is not known or was rejected against its auth events."""
        self.fetches = get_events is not None
        """Whether `fetch` does anything."""
        self.explains = steps is not None
        """Whether `note` does anything."""
        self._get_event = get_event
        self._get_events = get_events
        self._is_rejected = is_rejected
        self._known: dict[str, Event | None] = {}
        self._usable: dict[str, Event] = {}
        self._steps = steps

    def note(self, phase: str, event: Event, refusal: str | None) -> None:
        """Tell those who want it explained what was done next."""
        if self._steps is not None:
            self._steps.append(Step(phase, event, refusal))

    def _get_kept(self, event_id: str) -> Event | None:
        known = self._known
        if event_id in known:
            return known[event_id]
        event = known[event_id] = self._get_event(event_id)
        return event

    def _get_usable(self, event_id: str) -> Event | None:
        event = self._usable.get(event_id)
        if event is None:
            event = self.get(event_id)
            if event is None or (self._is_rejected is not None and self._is_rejected(event_id)):
                return None
            self._usable[event_id] = event
        return event

    def fetch(self, event_ids: Iterable[str]) -> None:
        """Fetch events that will be wanted, many at once where that is possible."""
        if self._get_events is None:
            return
        missing = set(event_ids)
        missing.difference_update(self._known)
        for batch in _batches(missing):
            found = self._get_events(batch)
            self._known.update(zip(batch, map(found.get, batch), strict=True))

    def fetch_auth(self, events: Iterable[Event]) -> None:
        """Fetch the events that these cite as their auth events."""
        if self._get_events is not None:
            self.fetch(set().union(*[event.auth_event_ids for event in events]))

    def auth_events(self, event: Event) -> Iterator[Event]:
        """Yield the known events that `event` cites as its auth events."""
        for event_id in event.auth_event_ids:
            found = self.get(event_id)
            if found is not None:
                yield found

    def auth_edges(self, event_ids: Set[str]) -> dict[str, tuple[str, ...]]:
        """Return the auth event IDs of each of these events; unknown ones are left out.

        Those that are fetched many at once are not kept in memory.
        """
        found = zip(event_ids, self._looked_at(event_ids), strict=True)
        return {name: event.auth_event_ids for name, event in found if event is not None}

    def auth_nodes(self, event_ids: Collection[str]) -> set[str]:
        """Return the auth event IDs of all of these events; otherwise as `auth_edges`."""
        found = self._looked_at(event_ids)
        return set().union(*[event.auth_event_ids for event in found if event is not None])

    def _looked_at(self, event_ids: Iterable[str]) -> list[Event | None]:
        """These events in order, which are not kept where they are fetched many at once."""
        if self._get_events is None:
            return list(map(self._get_event, event_ids))
        known = self._known
        names = list(event_ids)
        others: dict[str, Event] = {}
        for batch in _batches([name for name in names if name not in known]):
            others.update(self._get_events(batch))
        return [known[name] if name in known else others.get(name) for name in names]


def separate(state_sets: Sequence[Mapping[StateKey, str]]) -> tuple[StateMap, list[StateMap]]:
    """Part states into the unconflicted state map, and what each state has for other keys.

    A key is conflicted if it is missing from, or differs in, any of the states.
    """
    first, *others = state_sets
    keys: set[StateKey] = set()
    for other in others:
        if other is not first:
            keys.update(_differing(first, other))
    unconflicted = dict(first)
    for key in keys:
        unconflicted.pop(key, None)
    return unconflicted, [{key: state[key] for key in keys if key in state} for state in state_sets]


def _differing(one: Mapping[StateKey, str], other: Mapping[StateKey, str]) -> list[StateKey]:
    """Return the keys under which two states do not have the same."""
    get = other.get
    found = [key for key, name in one.items() if get(key) != name]
    shared = len(one) - sum([key not in other for key in found])
    if shared < len(other):
        found += [key for key in other if key not in one]
    return found


def _batches(event_ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(event_ids)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
