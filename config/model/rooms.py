"""Rooms and the room directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config.types import option


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
