"""Rooms and the room directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config.types import Duration, option
from homeserver.core.ids import valid_new_localpart
from homeserver.core.signing import parse_verify_key


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


def _check_policy_key(key: str) -> str | None:
    try:
        parse_verify_key(key)
    except ValueError:
        return "is no Ed25519 public key in unpadded Base64"
    return None if "=" not in key else "must have no = at its end"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyServer:
    """A policy server that runs under this server's name, for rooms that want its judgement."""

    ed25519: str = option(
        doc="Its public key, which is told at /.well-known/matrix/policy_server.",
        check=_check_policy_key,
        example="6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s",
    )


def _check_localpart(name: str) -> str | None:
    return None if valid_new_localpart(name) else "is not the first part of a user ID"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerNotices:
    """What the server itself tells its users, see `hearth notice`."""

    localpart: str = option(
        "notices",
        "The account that notices come from: the first part of its ID. Nobody may have it already.",
        check=_check_localpart,
    )
    display_name: str = option("Server notices", "The name of that account.")
    room_name: str = option("Server notices", "The name of the room that each user has for them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experimental:
    """A switch for each proposal that few clients use and that costs something."""

    unread_messages: bool = option(
        False,
        "Whether clients are told how many messages of each room are unread, notifying or not "
        "(org.matrix.msc2654.unread_count). They are counted for each room with news.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedEvents:
    """Events that clients have sent later, as calls need it."""

    longest_delay: Duration = option(Duration(86_400_000), "The longest delay.")
    per_user: int = option(
        100, "Events of one user that can wait at a time; 0: none are sent later.", minimum=0
    )
