"""Rooms and the room directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config.types import Duration, option


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicRooms:
    """The list of public rooms."""

    without_auth: bool = option(False, "Whether it is shown to people who are not logged in.")
    publication: Literal["anyone", "admins", "nobody"] = option(
        "anyone", "Who can put a room on it: anyone, admins (of the server) or nobody."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAliases:
    """Room aliases."""

    require_membership: bool = option(
        True, "Whether one must be joined to a room to make an alias for it."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Experimental:
    """A switch for each proposal that is not yet in the specification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedEvents:
    """Events that clients have sent later, as calls need it."""

    longest_delay: Duration = option(Duration(86_400_000), "The longest delay.")
    per_user: int = option(
        100, "Events of one user that can wait at a time; 0: none are sent later.", minimum=0
    )
