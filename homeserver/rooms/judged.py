"""What is said of events of other servers: the state before them, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from homeserver.core.event import Event
from homeserver.core.types import StateKey
from homeserver.rooms.noted import Noted
from storage.events import ACCEPTED

NOT_ADDED = -1
"""`Judged.status` of an event that was not stored."""


class Judged(NamedTuple):
    """What became of an event.

    `status` is as in `storage.events`, or `NOT_ADDED`; then `missing_prev` and `missing_auth` name
    events that have to be known before it can be judged. `pos` is its position if it is in the
    timeline; `is_new` is False for an event that was known before.
    """

    event_id: str
    status: int
    reason: str | None = None
    missing_prev: tuple[str, ...] = ()
    missing_auth: tuple[str, ...] = ()
    pos: int | None = None
    is_new: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the event is part of the room."""
        return self.status == ACCEPTED

    def at(self, pos: int) -> Judged:
        """The same of an event that has this position."""
        return self._replace(pos=pos)


@dataclass(frozen=True, slots=True)
class KnownState:
    """The state before an event: event IDs of events that are stored, outliers or not.

    `events` has those of them that are at hand, by ID, so that they need not be read; `noted`,
    if given, those of these that were just stored.
    """

    state: Mapping[StateKey, str]
    events: Mapping[str, Event] = field(default_factory=dict, compare=False, repr=False)
    noted: Noted | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Reset:
    """A change of the current state that no event of the batch is about."""

    key: StateKey
    old: str | None
    new: str | None
