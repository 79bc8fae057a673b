"""What a client asks of sliding sync, parsed and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeserver.core.tokens import SlidingToken
from homeserver.sync.sliding.required_state import RequiredState


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """What to send of a room: at most so many events of the timeline, and which state."""

    timeline_limit: int
    required_state: RequiredState

    def __or__(self, other: RoomConfig) -> RoomConfig:
        """What either of them wants."""
        return RoomConfig(
            max(self.timeline_limit, other.timeline_limit),
            self.required_state | other.required_state,
        )


@dataclass(frozen=True, slots=True)
class RoomFilters:
    """Which rooms are in a list; None: all."""

    is_dm: bool | None = None
    spaces: frozenset[str] | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] = frozenset()
    room_name_like: str | None = None
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RoomList:
    """A list: a window on the rooms that its filters let through."""

    config: RoomConfig
    filters: RoomFilters
    ranges: tuple[tuple[int, int], ...] | None
    """First and last place, both included; None: all rooms."""


@dataclass(frozen=True, slots=True)
class RoomExtension:
    """Of which rooms of the answer something more is wanted; None: of all in lists, of all
    subscribed to."""

    lists: frozenset[str] | None = None
    rooms: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ToDeviceExtension:
    """Messages to the device: those after a position of their own, None for the first."""

    since: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class StickyExtension:
    """Sticky events: those after a position of their own, None for the first."""

    since: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class ProfilesExtension:
    """Profiles of the people in these rooms, and changes of all; `fields` None: all fields."""

    rooms: RoomExtension
    fields: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Extensions:
    """What to send besides rooms; None: it is not wanted."""

    to_device: ToDeviceExtension | None = None
    e2ee: bool = False
    account_data: RoomExtension | None = None
    receipts: RoomExtension | None = None
    typing: RoomExtension | None = None
    thread_subscriptions: int | None = None
    """At most so many changes."""
    sticky: StickyExtension | None = None
    profiles: ProfilesExtension | None = None


@dataclass(frozen=True, slots=True)
class SlidingRequest:
    """A request."""

    user_id: str
    device_id: str
    conn_id: str
    pos: SlidingToken | None
    lists: Mapping[str, RoomList]
    subscriptions: Mapping[str, RoomConfig]
    """By room ID."""
    extensions: Extensions
