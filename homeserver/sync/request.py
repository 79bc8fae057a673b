"""What a `/sync` is computed for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from homeserver.core.filters import Filter
from homeserver.core.push_volume import Volume
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.shown_rooms import ShownRooms
from homeserver.sync.shared import SharedReads
from storage.events import EventRow
from storage.state import StateStore
from storage.transaction import Transaction
from storage.unread import Counts
from storage.user_news import Newest, RoomThen


class SyncRequest(NamedTuple):
    """The parameters of a `/sync`, parsed."""

    user_id: str
    device_id: str
    since: int | None
    """Durable position of the token; None: initial sync."""
    ephemeral_since: int | None
    to_device_since: int | None
    """Position up to which the device got its messages."""
    filter: Filter
    sticky_since: int | None = None
    """Position up to which the client got sticky events; None: as `since`."""
    full_state: bool = False
    use_state_after: bool = False

    @property
    def is_behind(self) -> bool:
        """Whether the client has not got all messages to its device, or sticky events, of before
        its token."""
        return self.to_device_since != self.since or self.sticky_since not in (None, self.since)

    @property
    def lists_everything(self) -> bool:
        """Whether rooms are sent in which nothing happened."""
        return self.since is None or self.full_state


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was read of several rooms at once (`homeserver.sync.ahead`), by number of the room."""

    timelines: Mapping[int, Sequence[EventRow]]
    """The newest events, one more than the limit, newest first."""
    numbers: Mapping[int, Mapping[StateKey, int]]
    """Numbers of the events of the current state: for lazy clients without members."""
    members: Mapping[int, Mapping[StateKey, int]]
    """Those of the members whom a lazy client has to know."""
    rows: Mapping[int, EventRow]
    """State events by their numbers."""
    heroes: Mapping[int, list[str]]
    counts: Mapping[int, Mapping[str, int]]
    """How many users are joined and invited."""
    related: frozenset[str]
    """IDs of those of the events in the timelines to which others relate."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent reading: everything up to `now` and nothing after it."""

    txn: Transaction
    states: StateStore
    request: SyncRequest
    newest: Newest
    now_ms: int
    ignored: frozenset[str]
    known_members: frozenset[int]
    """Numbers of the member events that the device has (with lazy loading)."""
    counts_messages: bool = False
    """Whether all unread messages are counted (MSC2654)."""
    sent_members: set[int] = field(default_factory=set)
    """Numbers of the member events that this answer has (with lazy loading)."""
    dropped_members: set[int] = field(default_factory=set)
    """Numbers of those of `known_members` that are of rooms with which the client starts anew."""

    counts: dict[int, Counts] = field(default_factory=dict)
    """The unread counts of the rooms that the answer has."""
    volumes: dict[int, Volume] = field(default_factory=dict)
    """The user's volumes of these."""
    then: dict[int, RoomThen] = field(default_factory=dict)
    """Rooms that were read already, as they are and as they were at the token."""
    shared: SharedReads | None = None
    """What other answers may have read already."""
    kept: ShownRooms | None = None
    """Rooms as they were shown to others."""
    ahead: Ahead | None = None
    """What was read already of rooms of which the client knows nothing."""

    @property
    def now(self) -> int:
        """The position of the clock."""
        return self.newest.now


def nothing(request: SyncRequest) -> JsonObject:
    """The section of a joined room in whose timeline and state nothing happened."""
    return {
        "timeline": {"events": [], "limited": False},
        "state_after" if request.use_state_after else "state": {"events": []},
    }
