"""What an append transaction knows of a new event before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from homeserver.core.event import Event
from homeserver.core.types import StateKey
from storage.events import ACCEPTED, TransactionKey

MEMBER = "m.room.member"


class Current(NamedTuple):
    """An event that is in the room's current state from now on."""

    event: Event
    event_nid: int


class Placed(NamedTuple):
    """Such an event, and from which position on."""

    current: Current
    pos: int


@dataclass(slots=True)
class Rooted:
    """A new event with its number, and what it does to the states around it.

    Parameters:
        before, after: roots of the state before and after the event; None: it has no place.
        current: root of the room's current state once the event is in; None: the event does not
            count for it.
        changes: by which `current` differs from the current state before; None: key removed.
        status: see `storage.events`.
        is_known: a row of this number is there already, without a place.
    """

    event: Event
    event_nid: int
    before: bytes | None
    after: bytes | None
    current: bytes | None
    changes: Mapping[StateKey, Current | None]
    status: int = ACCEPTED
    transaction: TransactionKey | None = None
    replaces: Event | None = None
    outgoing: bool = False
    is_known: bool = False
    logged: str = ""

    @property
    def asides(self) -> list[StateKey]:
        """Memberships that changed beside the event, by resolution of the states, and are logged:
        those of user IDs that end with `logged`."""
        if not self.changes:
            return []
        own = self.event.key if self.event.is_state else None
        logged = self.logged
        # Few of many do.
        found = [key for key in self.changes if key[1].endswith(logged)]
        return [key for key in found if key[0] == MEMBER and key != own]
