"""A user's presence and how it changes (client-server API, "Presence").

Times are in milliseconds. Functions return a new `Presence`; `worth_telling` says whether others
need to hear of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from homeserver.core.types import JsonObject

State = Literal["online", "unavailable", "offline"]
STATES: tuple[State, ...] = ("online", "unavailable", "offline")

OFFLINE_AFTER = 45_000
"""A user who is no longer in touch is offline after this."""
IDLE_AFTER = 300_000
"""An online user who does nothing is unavailable after this."""
REMOTE_OFFLINE_AFTER = 1_800_000
"""A user of another server is offline if that server says nothing for so long."""
ACTIVE_FOR = 60_000
"""A user is currently active for this long after doing something."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of a user.

    `active` is when the user last did something, `contact` when a client was last in touch;
    0 is never.
    """

    state: State = "offline"
    status_msg: str | None = None
    active: int = 0
    contact: int = 0
    currently_active: bool = False

    def dump(self) -> JsonObject:
        """For storage."""
        return asdict(self)

    @classmethod
    def load(cls, stored: Any) -> Presence:
        """What `dump` gave; OFFLINE for anything else."""
        try:
            return cls(**stored)
        except TypeError:
            return OFFLINE

    def content(self, now: int) -> JsonObject:
        """The content of an `m.presence` event."""
        content: JsonObject = {"presence": self.state}
        if self.active:
            content["last_active_ago"] = max(now - self.active, 0)
        if self.state == "online":
            content["currently_active"] = self.currently_active
        if self.status_msg is not None:
            content["status_msg"] = self.status_msg
        return content


OFFLINE = Presence()


def worth_telling(old: Presence, new: Presence) -> bool:
    """Whether others are told of a change.

    While a user is `currently_active`, newer activity is not news.
    """
    return (old.state, old.status_msg, old.currently_active) != (
        new.state,
        new.status_msg,
        new.currently_active,
    )


def set_by_user(presence: Presence, state: State, status_msg: str | None, now: int) -> Presence:
    """The user says so."""
    return Presence(state, status_msg, now, now, currently_active=state == "online")


def syncing(presence: Presence, wanted: State, now: int, *, is_elsewhere_online: bool) -> Presence:
    """A client syncs with this `set_presence`.

    It brings a user online who was offline, and is no activity of its own: an idle user stays
    idle. One client that is idle does not make a user idle who is online with another.
    """
    if wanted == "offline":
        return presence
    presence = replace(presence, contact=now)
    if wanted == "unavailable":
        if presence.state == "unavailable" or is_elsewhere_online:
            return presence
        return replace(presence, state="unavailable", currently_active=False)
    if presence.state == "offline":
        return replace(presence, state="online", active=now, currently_active=True)
    return presence


def acted(presence: Presence, now: int) -> Presence:
    """The user did something, such as sending a message.

    That brings them back from idleness. Those who are offline, perhaps by their will, stay so,
    and when they were active is not told.
    """
    if presence.state == "offline":
        return presence
    return replace(presence, state="online", active=now, contact=now, currently_active=True)


def passed(presence: Presence, now: int) -> Presence:
    """What becomes of a presence when nothing happens until `now`."""
    if presence.state == "offline":
        return presence
    if now - presence.contact >= OFFLINE_AFTER:
        return replace(presence, state="offline", currently_active=False)
    if presence.state != "online":
        return presence
    if now - presence.active >= IDLE_AFTER:
        return replace(presence, state="unavailable", currently_active=False)
    if presence.currently_active and now - presence.active >= ACTIVE_FOR:
        return replace(presence, currently_active=False)
    return presence


def told(
    state: State, status_msg: str | None, active_ago: int | None, currently_active: bool, now: int
) -> Presence:
    """What another server says of its user now."""
    active = 0 if active_ago is None else max(now - active_ago, 1)
    return Presence(state, status_msg, active, now, currently_active and state == "online")


def remote_passed(presence: Presence, now: int) -> Presence:
    """What becomes of a remote user's presence when their server says nothing until `now`."""
    if presence.state == "offline" or now - presence.contact < REMOTE_OFFLINE_AFTER:
        return presence
    return replace(presence, state="offline", currently_active=False)
