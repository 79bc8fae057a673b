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
SharedChain: TypeAlias = Callable[[Set[str], Set[str]], Set[str]]

_BATCH = 500


class Step(NamedTuple):
    """One look at an event during a resolution: applied, unless there is a reason against it."""

    phase: str
    """`power` events come first, then `others` (room version 2)."""
    event: Event
    refusal: str | None


class Events:
    """The events of one room during one resolution, each fetched once.

    `get_event` gives an event by ID, None if it is not known. `get_events`, if given, fetches
    many at once. `is_rejected` says whether an event was rejected against its own auth events,
    which takes it out of state resolution; an event rejected only against the state before it
    must not count (room version 2, "Rejected events"). `shared_chain(wanted, passed)`, if given,
    does for the unconflicted events what `auth_chain.chain_among` does. `steps`, if given, is told
    by versions 2 and up what they looked at, in order.
    """

    def __init__(
        self,
        get_event: GetEvent,
        get_events: GetEvents | None = None,
        is_rejected: Callable[[str], bool] | None = None,
        shared_chain: SharedChain | None = None,
        steps: list[Step] | None = None,
    ) -> None:
        self.shared_chain = shared_chain
        self._get_event = get_event
        self._get_events = get_events
        self._is_rejected = is_rejected
        self._known: dict[str, Event | None] = {}
        self._usable: dict[str, Event | None] = {}
        self._steps = steps

    def note(self, phase: str, event: Event, refusal: str | None) -> None:
        """Tell those who want it explained what was done next."""
        if self._steps is not None:
            self._steps.append(Step(phase, event, refusal))

    def get(self, event_id: str) -> Event | None:
        """Return an event, None if it is not known."""
        try:
            return self._known[event_id]
        except KeyError:
            event = self._known[event_id] = self._get_event(event_id)
            return event

    def usable(self, event_id: str) -> Event | None:
        """Return an event, None if it is not known or was rejected against its auth events."""
        try:
            return self._usable[event_id]
        except KeyError:
            event = self.get(event_id)
            if event is not None and self._is_rejected is not None and self._is_rejected(event_id):
                event = None
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
            for event_id in batch:
                self._known[event_id] = found.get(event_id)

    def auth_events(self, event: Event) -> Iterator[Event]:
        """Yield the known events that `event` cites as its auth events."""
        for event_id in event.auth_event_ids:
            found = self.get(event_id)
            if found is not None:
                yield found

    def auth_edges(self, event_ids: Set[str]) -> Iterator[tuple[str, ...]]:
        """Yield the auth event IDs of each of these events, without keeping them in memory.

        An unknown event has none.
        """
        known, missing = self._known, []
        for event_id in event_ids:
            event = known.get(event_id)
            if event is not None:
                yield event.auth_event_ids
            elif self._get_events is not None:
                missing.append(event_id)
            elif (event := self._get_event(event_id)) is not None:
                yield event.auth_event_ids
        if self._get_events is not None:
            for batch in _batches(missing):
                yield from [event.auth_event_ids for event in self._get_events(batch).values()]


def separate(state_sets: Sequence[Mapping[StateKey, str]]) -> tuple[StateMap, list[StateMap]]:
    """Part states into the unconflicted state map, and what each state has for other keys.

    A key is conflicted if it is missing from, or differs in, any of the states.
    """
    first, *others = state_sets
    keys: set[StateKey] = set()
    for other in others:
        if other is not first:
            keys.update(key for key, _ in first.items() ^ other.items())
    unconflicted = dict(first)
    for key in keys:
        unconflicted.pop(key, None)
    return unconflicted, [{key: state[key] for key in keys if key in state} for state in state_sets]


def _batches(event_ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(event_ids)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
