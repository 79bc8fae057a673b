"""Conditions of push rules: checked when a rule is set, compiled once, then asked per event.

Client-server API, "Push Notifications", Conditions. A condition of an unknown kind, or one that
is malformed in storage, never matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from homeserver.core.errors import MatrixError, bad_json, invalid_param, missing_param
from homeserver.core.globs import MAX_GLOB_LENGTH, compile_glob, contains_words
from homeserver.core.property_paths import (
    ABSENT,
    MAX_PATH_LENGTH,
    PropertyPath,
    lookup,
    split_path,
)
from homeserver.core.types import JsonObject

DEFAULT_NOTIFICATION_LEVEL = 50
"""Power level for a kind of notification that `m.room.power_levels` does not name."""
MAX_MENTIONS = 1000
"""Most users of one `m.mentions` that are looked at."""
MAX_DISPLAY_NAME = 256
"""Longest display name, in characters, that is searched for in messages."""

_BODY = ("content", "body")
_COUNT = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,15})")
_MAX_INTEGER = 2**53 - 1


def _default_level(key: str) -> int:
    return DEFAULT_NOTIFICATION_LEVEL


class PushEvent:
    """An event and what push rules ask of the room, by the state at the event.

    Parameters: `fields`, the event in client form (`type`, `sender`, `room_id`, `content`,
    `state_key` for state); `member_count`, joined members; `sender_power_level`;
    `notification_level(key)`, the power level that `notifications` of `m.room.power_levels` asks
    for; `follows`, whether the user who is asked about follows the thread of the event, None if it
    is in no thread or the user does not use that at all (MSC4306).
    """

    __slots__ = ("fields", "follows", "member_count", "notification_level", "sender_power_level")

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        member_count: int,
        sender_power_level: int,
        notification_level: Callable[[str], int] = _default_level,
    ) -> None:
        self.fields = fields
        self.member_count = member_count
        self.sender_power_level = sender_power_level
        self.notification_level = notification_level
        self.follows: bool | None = None

    @property
    def sender(self) -> Any:
        return self.fields.get("sender")

    @property
    def room_id(self) -> Any:
        return self.fields.get("room_id")


THREAD_SUBSCRIPTION = "io.element.msc4306.thread_subscription"

Condition = Callable[[PushEvent, str | None], bool]
"""Whether an event meets a condition; the second parameter is the reader's display name."""


def never(event: PushEvent, display_name: str | None) -> bool:
    """The condition that no event meets."""
    return False


def mentioned_users(content: Any) -> list[str]:
    """The user IDs in `m.mentions` of a content: only strings that can be one, each once."""
    mentions = content.get("m.mentions") if isinstance(content, dict) else None
    user_ids = mentions.get("user_ids") if isinstance(mentions, dict) else None
    if not isinstance(user_ids, list):
        return []
    wanted = (u for u in user_ids if isinstance(u, str) and u[:1] == "@" and len(u) <= 255)
    return list(dict.fromkeys(wanted))[:MAX_MENTIONS]


def event_match(key: str, pattern: str) -> Condition:
    """`event_match`: a glob on a string; on `content.body` between word boundaries."""
    path, glob = split_path(key), compile_glob(pattern)
    if len(path) == 1 and "*" not in pattern and "?" not in pattern:
        return _field_equals(path[0], pattern.lower())
    if path != _BODY and glob.is_literal:
        return _value_equals(path, pattern.lower())
    matches = glob.matches_words if path == _BODY else glob.matches

    def condition(event: PushEvent, display_name: str | None) -> bool:
        value = lookup(event.fields, path)
        return isinstance(value, str) and matches(value)

    return condition


def _field_equals(name: str, lowered: str) -> Condition:
    """What most conditions are, and every event is asked: `type` or `room_id` is this string."""

    def condition(event: PushEvent, display_name: str | None) -> bool:
        value = event.fields.get(name)
        return isinstance(value, str) and (value == lowered or value.lower() == lowered)

    return condition


def _value_equals(path: PropertyPath, lowered: str) -> Condition:
    def condition(event: PushEvent, display_name: str | None) -> bool:
        value = lookup(event.fields, path)
        return isinstance(value, str) and (value == lowered or value.lower() == lowered)

    return condition


def event_property_is(key: str, value: Any) -> Condition:
    """`event_property_is`: the same value of the same type."""
    path = split_path(key)

    def condition(event: PushEvent, display_name: str | None) -> bool:
        return _same(lookup(event.fields, path), value)

    return condition if _is_simple(value) else never


def event_property_contains(key: str, value: Any) -> Condition:
    """`event_property_contains`: a list with the same value of the same type in it."""
    path = split_path(key)

    def condition(event: PushEvent, display_name: str | None) -> bool:
        items = lookup(event.fields, path)
        return isinstance(items, list) and any(_same(item, value) for item in items)

    return condition if _is_simple(value) else never


def contains_display_name(event: PushEvent, display_name: str | None) -> bool:
    """`contains_display_name` (deprecated since 1.17, but rules with it keep working)."""
    body = lookup(event.fields, _BODY)
    if not isinstance(body, str) or not display_name or len(display_name) > MAX_DISPLAY_NAME:
        return False
    return contains_words(display_name, body)


def room_member_count(comparison: str) -> Condition:
    """`room_member_count`: `2`, `==2`, `<2`, `>2`, `<=2` or `>=2`."""
    found = _COUNT.fullmatch(comparison)
    if found is None:
        return never
    operator, number = found[1] or "==", int(found[2])

    def condition(event: PushEvent, display_name: str | None) -> bool:
        count = event.member_count
        if operator == "==":
            return count == number
        if operator == "<":
            return count < number
        if operator == ">":
            return count > number
        return count <= number if operator == "<=" else count >= number

    return condition


def sender_notification_permission(key: str) -> Condition:
    """`sender_notification_permission`: the sender has the level that `notifications` asks for."""

    def condition(event: PushEvent, display_name: str | None) -> bool:
        return event.sender_power_level >= event.notification_level(key)

    return condition


def thread_subscription(subscribed: bool) -> Condition:
    """`thread_subscription` (MSC4306): the user follows the thread of the event, or does not."""

    def condition(event: PushEvent, display_name: str | None) -> bool:
        return event.follows is subscribed

    return condition


def compile_condition(source: Any) -> Condition:
    """The condition that a JSON value describes; `never` if it is unknown or malformed."""
    if not isinstance(source, dict):
        return never
    try:
        check_condition(source, "condition")
    except MatrixError:
        return never
    kind = source["kind"]
    if kind == "event_match":
        return event_match(source["key"], source["pattern"])
    if kind == "event_property_is":
        return event_property_is(source["key"], source["value"])
    if kind == "event_property_contains":
        return event_property_contains(source["key"], source["value"])
    if kind == "room_member_count":
        return room_member_count(source["is"])
    if kind == "sender_notification_permission":
        return sender_notification_permission(source["key"])
    if kind == THREAD_SUBSCRIPTION:
        return thread_subscription(source["subscribed"])
    return contains_display_name if kind == "contains_display_name" else never


def check_condition(source: Any, where: str) -> None:
    """Refuse a malformed condition; conditions of unknown kinds pass.

    Raises MatrixError 400: M_BAD_JSON, M_MISSING_PARAM or M_INVALID_PARAM, naming `where`.
    """
    if not isinstance(source, dict):
        raise bad_json(f"{where} must be an object.")
    kind = _text(source, "kind", where)
    if kind in ("event_match", "event_property_is", "event_property_contains"):
        if len(_text(source, "key", where)) > MAX_PATH_LENGTH:
            raise invalid_param(f"{where}.key is too long.")
        if kind == "event_match":
            check_pattern(_text(source, "pattern", where), f"{where}.pattern")
        elif "value" not in source:
            raise missing_param(f"{where}.value")
        elif not _is_simple(source["value"]):
            raise bad_json(f"{where}.value must be a string, integer, boolean or null.")
    elif kind == "room_member_count":
        if _COUNT.fullmatch(_text(source, "is", where)) is None:
            raise invalid_param(f"{where}.is must be a number after ==, <, >, <=, >= or nothing.")
    elif kind == "sender_notification_permission":
        _text(source, "key", where)
    elif kind == THREAD_SUBSCRIPTION and not isinstance(source.get("subscribed"), bool):
        raise bad_json(f"{where}.subscribed must be true or false.")


def check_pattern(pattern: str, where: str) -> None:
    """Refuse a glob that is too long, with 400 M_INVALID_PARAM."""
    if len(pattern) > MAX_GLOB_LENGTH:
        raise invalid_param(f"{where} is longer than {MAX_GLOB_LENGTH} characters.")


def is_about_room(source: JsonObject) -> str | None:
    """The room ID, in lower case, to which a condition restricts its rule; None if it does not."""
    pattern = source.get("pattern")
    if source.get("kind") != "event_match" or source.get("key") != "room_id":
        return None
    if not isinstance(pattern, str) or "*" in pattern or "?" in pattern:
        return None
    return pattern.lower()


def is_about_content(source: JsonObject) -> bool:
    """Whether a condition searches what the sender wrote, which takes time by its length."""
    kind, key = source.get("kind"), source.get("key")
    if kind in ("contains_display_name", "event_property_contains"):
        return True
    return kind == "event_match" and isinstance(key, str) and key.startswith("content.")


def _text(source: JsonObject, key: str, where: str) -> str:
    if key not in source:
        raise missing_param(f"{where}.{key}")
    value = source[key]
    if not isinstance(value, str):
        raise bad_json(f"{where}.{key} must be a string.")
    return value


def _is_simple(value: Any) -> bool:
    """Whether a value is one of the four kinds that are compared."""
    if value is None or isinstance(value, bool | str):
        return True
    return isinstance(value, int) and abs(value) <= _MAX_INTEGER


def _same(value: Any, wanted: Any) -> bool:
    return value is not ABSENT and type(value) is type(wanted) and bool(value == wanted)
