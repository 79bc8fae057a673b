"""Power levels: who may do what in a room.

Client-server API, "Permissions"; event `m.room.power_levels`; room versions, rule 10.

1. A level is an integer. Versions before 10 take decimal strings too, versions before 6 also
   floats, cut off at the point. What cannot be read counts as absent wherever levels are looked
   up, and makes a new power-levels event be rejected.
2. Without a power-levels event the creator has 100 and everybody else 0.
3. From version 12 the creators stand above every number and may not be listed.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from homeserver.core import errors
from homeserver.core.event import Event
from homeserver.core.ids import UserID, domain_of
from homeserver.core.rejection import EventRejected
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject

INFINITE: Final = 2**63
"""The level of a creator in versions that privilege creators: above every readable level there."""

CREATOR_LEVEL: Final = 100
"""The level of the creator while a room has no power-levels event."""

DEFAULTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "users_default": 0,
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "redact": 50,
        "kick": 50,
        "invite": 0,
    }
)
"""The levels that stand directly in the content, and what each is when it is not given."""

NOTIFICATION_DEFAULT: Final = 50

_MAX_CANONICAL: Final = 2**53 - 1
_MAX_DOUBLE: Final = int(sys.float_info.max)
_INTEGER: Final = re.compile(r"\s*[+-]?[0-9]+\s*")
_MAX_INTEGER_TEXT: Final = 1000  # Keeps `int()` cheap; far above what fits a double.


def read_level(value: object, version: RoomVersion) -> int | None:
    """The level that a JSON value stands for in rooms of `version`, or None if it is none."""
    number: int
    # Not isinstance: True is no level.
    if type(value) is int:
        number = value
    elif isinstance(value, str) and version.string_power_levels:
        if len(value) > _MAX_INTEGER_TEXT or not _INTEGER.fullmatch(value):
            return None
        number = int(value)
    elif isinstance(value, float) and version.float_power_levels:
        if not math.isfinite(value):
            return None
        number = int(value)
    else:
        return None
    limit = _MAX_CANONICAL if version.strict_canonical_json else _MAX_DOUBLE
    return number if -limit <= number <= limit else None


def room_creators(create: Event) -> frozenset[str]:
    """The users whom the create event makes creators.

    Versions 1 to 10: `creator` of the content; 11: the sender; from 12: the sender and the
    `additional_creators`.
    """
    version = create.version
    if not version.implicit_room_creator:
        creator = create.content.get("creator")
        return frozenset({creator}) if isinstance(creator, str) else frozenset()
    if not version.creators_privileged:
        return frozenset({create.sender})
    additional = create.content.get("additional_creators")
    names = additional if isinstance(additional, list) else []
    return frozenset({create.sender, *(name for name in names if isinstance(name, str))})


class PowerLevels:
    """The levels that hold in a room, read from its power-levels event as they are asked for.

    Build with `PowerLevels.of`.
    """

    __slots__ = ("_content", "_create", "_known_creators", "version")

    def __init__(
        self, version: RoomVersion, creators: frozenset[str], content: JsonObject | None
    ) -> None:
        self.version = version
        self._known_creators: frozenset[str] | None = creators
        self._create: Event | None = None
        self._content = content

    @classmethod
    def of(cls, power_event: Event | None, create: Event) -> PowerLevels:
        """The levels after `power_event` (None: the room has none) in the room of `create`."""
        content = None if power_event is None else power_event.content
        levels = cls(create.version, frozenset(), content)
        # Looked up when they are asked for, which most rules do not.
        levels._create, levels._known_creators = create, None
        return levels

    @property
    def _creators(self) -> frozenset[str]:
        found = self._known_creators
        if found is None:
            assert self._create is not None
            found = self._known_creators = room_creators(self._create)
        return found

    def user_level(self, user_id: str) -> int:
        """The power level of a user; `INFINITE` for a privileged creator."""
        if user_id in self._creators:
            if self.version.creators_privileged:
                return INFINITE
            if self._content is None:
                return CREATOR_LEVEL
        if self._content is None:
            return 0
        level = self._entry("users", user_id)
        return self._named("users_default") if level is None else level

    def event_level(self, event_type: str, is_state: bool) -> int:
        """The required power level of an event type (server-server API, "Definitions")."""
        level = self._entry("events", event_type)
        if level is not None:
            return level
        return self._named("state_default" if is_state else "events_default")

    def notification(self, key: str = "room") -> int:
        """The level needed to notify by `key`, such as `room` for an @room mention."""
        level = self._entry("notifications", key)
        return NOTIFICATION_DEFAULT if level is None else level

    @property
    def invite(self) -> int:
        return self._named("invite")

    @property
    def kick(self) -> int:
        return self._named("kick")

    @property
    def ban(self) -> int:
        return self._named("ban")

    @property
    def redact(self) -> int:
        return self._named("redact")

    @property
    def creators(self) -> frozenset[str]:
        """The creators of the room, privileged or not."""
        return self._creators

    def listed_users(self) -> dict[str, int]:
        """The users with a level of their own: those listed, and privileged creators."""
        found = {} if self._content is None else _levels(self._content, "users", self.version)
        if self.version.creators_privileged:
            found.update(dict.fromkeys(self._creators, INFINITE))
        return found

    def _named(self, name: str) -> int:
        level = None if self._content is None else read_level(self._content.get(name), self.version)
        return DEFAULTS[name] if level is None else level

    def _entry(self, group: str, key: str) -> int | None:
        if self._content is None:
            return None
        entries = self._content.get(group)
        return read_level(entries.get(key), self.version) if isinstance(entries, dict) else None


def can_redact(event_sender: str, redaction_sender: str, power: PowerLevels) -> bool:
    """Whether an accepted redaction takes effect on an event of the same room.

    `power` holds at the redaction. Room version 3, "Handling redactions". Versions 1 and 2 judge
    this in the authorisation rules, so that an accepted redaction always takes effect.
    """
    if power.version.redaction_auth_rule:
        return True
    if power.user_level(redaction_sender) >= power.redact:
        return True
    return domain_of(redaction_sender) == domain_of(event_sender)


# Rule 10: power-levels events


def check_power_levels(event: Event, current: Event | None, power: PowerLevels) -> None:
    """Rule 10: may `event`, a power-levels event, replace `current`?

    `power` are the levels of `current` (which may be None). Raises `EventRejected`.
    """
    version = event.version
    content = event.content
    _check_shape(content, version)
    # 10.4
    if version.creators_privileged:
        listed = sorted(power.creators & content.get("users", {}).keys())
        if listed:
            raise EventRejected("10.4", f"The creator {listed[0]} may not be listed in users.")
    # 10.5
    if current is None:
        return
    level = power.user_level(event.sender)
    old_content = current.content
    # 10.6
    for name in DEFAULTS:
        old = read_level(old_content.get(name), version)
        new = read_level(content.get(name), version)
        _check_old("10.6.1", name, old, new, level)
        _check_new("10.6.2", name, old, new, level)
    # 10.7, 10.8
    for group in ("events", "notifications") if version.notifications_guarded else ("events",):
        olds, news = _levels(old_content, group, version), _levels(content, group, version)
        for key in sorted(olds.keys() | news.keys()):
            old, new = olds.get(key), news.get(key)
            _check_old("10.7.1", f"{group}.{key}", old, new, level)
            _check_new("10.8.1", f"{group}.{key}", old, new, level)
    # 10.9, 10.10
    olds, news = _levels(old_content, "users", version), _levels(content, "users", version)
    for user_id in sorted(olds.keys() | news.keys()):
        old, new = olds.get(user_id), news.get(user_id)
        if user_id != event.sender and old is not None and old != new and old >= level:
            raise EventRejected("10.9.1", f"The level {old} of {user_id} is out of reach.")
        _check_new("10.10.1", f"users.{user_id}", old, new, level)


def _check_shape(content: JsonObject, version: RoomVersion) -> None:
    """Rules 10.1 to 10.3.

    Versions before 10 spell out only 10.3. Their pages on strings and floats say what a level may
    be, and that any other value rejects the event, so that the same checks hold for all.
    """
    # 10.1
    for name in DEFAULTS:
        if name in content and read_level(content[name], version) is None:
            raise EventRejected("10.1", f"{name} is not a power level.")
    # 10.2
    for group in ("events", "notifications") if version.notifications_guarded else ("events",):
        if group in content and not _all_levels(content[group], version):
            raise EventRejected("10.2", f"{group} does not map to power levels.")
    # 10.3
    if "users" in content:
        users = content["users"]
        if not _all_levels(users, version):
            raise EventRejected("10.3", "users does not map to power levels.")
        for user_id in users:
            if not is_user_id(user_id):
                raise EventRejected("10.3", "users names something that is not a user ID.")


def _all_levels(value: object, version: RoomVersion) -> bool:
    return isinstance(value, dict) and all(
        read_level(level, version) is not None for level in value.values()
    )


def _check_old(rule: str, name: str, old: int | None, new: int | None, level: int) -> None:
    if old is not None and old != new and old > level:
        raise EventRejected(rule, f"The present level {old} of {name} is above the sender's.")


def _check_new(rule: str, name: str, old: int | None, new: int | None, level: int) -> None:
    if new is not None and old != new and new > level:
        raise EventRejected(rule, f"The new level {new} of {name} is above the sender's.")


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _levels(content: JsonObject, group: str, version: RoomVersion) -> dict[str, int]:
    found = {}
    for key, value in _object(content.get(group)).items():
        level = read_level(value, version)
        if level is not None:
            found[key] = level
    return found


def is_user_id(value: object) -> bool:
    """Whether a JSON value is a user ID, historical ones included."""
    return isinstance(value, str) and UserID.is_valid(value)


# Content that clients send


def check_sent_power_levels(content: Any, creators: Collection[str] = ()) -> None:
    """Refuse power levels that this server must not send, whatever the room version takes.

    Server-server API, "Definitions": no strings. `creators` are the users who may not be listed:
    `room_creators(create)` where the version privileges creators, else nobody. Raises
    `MatrixError` 400: `M_BAD_JSON` for wrong types, `M_INVALID_PARAM` for wrong user IDs.
    """
    if not isinstance(content, dict):
        raise errors.bad_json("Power levels must be an object.")
    for name in DEFAULTS:
        if name in content:
            _check_sent_level(name, content[name])
    for group in ("events", "notifications", "users"):
        entries = content.get(group, {})
        if not isinstance(entries, dict):
            raise errors.bad_json(f"{group} must be an object.")
        for key, value in entries.items():
            _check_sent_level(f"{group}.{key}", value)
    for user_id in content.get("users", {}):
        if not is_user_id(user_id):
            raise errors.invalid_param(f"users: {user_id!r} is not a user ID.")
        if user_id in creators:
            raise errors.invalid_param(f"users: {user_id} created the room and cannot be listed.")


def _check_sent_level(name: str, value: object) -> None:
    if type(value) is not int:
        raise errors.bad_json(f"{name} must be an integer.")
    if not -_MAX_CANONICAL <= value <= _MAX_CANONICAL:
        raise errors.bad_json(f"{name} is out of range.")
