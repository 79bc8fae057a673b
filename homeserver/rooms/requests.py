"""What services ask of the append path, and what they get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.rooms.build import EventTemplate
from storage.events import TransactionKey
from storage.transaction import Transaction


class StateView(Protocol):
    """The room's state under the lock, for decisions that must not race."""

    def get(self, event_type: str, state_key: str = "") -> Event | None:
        """The current state event of this key."""

    @property
    def pending(self) -> Sequence[Event]:
        """Events that the same transaction adds to the room before; not in the database yet."""


Templates = Sequence[EventTemplate] | Callable[[StateView], Sequence[EventTemplate]]
"""The events, or a function that decides on them by the newest state (and may raise MatrixError).

The function runs in a database thread, perhaps more than once: it must have no effects.
"""


@dataclass(frozen=True, slots=True)
class Succession:
    """A new room that takes the place of an old one: both change together, or neither.

    Parameters:
        old_room_id: the room that is given up.
        retire: the old room's last events, by its newest state and the ID of the new room.
        begin: the new room's events, the first of them its create event; called with the ID of
            the first of the old room's last events, or None where the new room's ID must be
            known before those are made.
    """

    old_room_id: str
    retire: Callable[[StateView, str], Sequence[EventTemplate]]
    begin: Callable[[str | None], Sequence[EventTemplate]]


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Events to add to one room: all of them, or none.

    Parameters:
        room_id: the room; None makes a new one (`create` then gives its version).
        templates: see `Templates`. The first template of a new room is its create event.
        transaction: the client's transaction; a request with the same one gives the first answer.
        idempotent: a state event equal to the current one is not added again.
        guard: asked before the events are built; raises MatrixError to refuse.
        within: more writing in the same transaction, called with the room's number and ID; it
            may raise MatrixError to refuse everything.
        succession: for a new room that replaces another; its events then come from there, and
            `templates` is empty.
        pretend: let everything be as if the events were added, but add none and write nothing.
    """

    room_id: str | None
    templates: Templates
    transaction: TransactionKey | None = None
    idempotent: bool = False
    create: RoomVersion | None = None
    guard: Callable[[StateView], None] | None = None
    within: Callable[[Transaction, int, str], None] | None = None
    succession: Succession | None = None
    pretend: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of an `AppendRequest` that was committed."""

    room_id: str
    event_ids: tuple[str, ...]
    """One for each template: new events, or the old ones that made a new one needless."""
    pos: int
    """The position of the last event; 0 if none was made."""
