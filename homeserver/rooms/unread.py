"""What an event does to unread counts, decided once when it is appended.

1. An event has a class for everybody in the room: silent, notifying, or highlighting. The room
   keeps running totals of the classes, so that a message costs no row per member.
2. Users who are told more or less than the class says get a mark: those who are mentioned, and
   those whose own push rules say something else.
3. A user's count is then: total now - total at their receipt - own events + marks since.

The main timeline and threads are counted apart; `storage.unread` reads the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from homeserver.core import push_rules
from homeserver.core.event import Event
from homeserver.core.power_levels import PowerLevels
from homeserver.rooms.draft import CREATE, RoomDraft
from storage import memberships, unread
from storage.events import EventRow
from storage.transaction import Transaction

_POWER = ("m.room.power_levels", "")


def notify_class(event: Event, draft: RoomDraft) -> int:
    """0 silent, 1 notifies, 2 highlights, by the default push rules."""
    return push_rules.event_class(event, lambda: _may_notify_room(event.sender, draft))


def _may_notify_room(sender: str, draft: RoomDraft) -> bool:
    state = draft.state([CREATE, _POWER])
    if CREATE not in state:
        return False
    power = PowerLevels.of(state.get(_POWER), state[CREATE])
    return power.user_level(sender) >= power.notification("room")
