"""Reading what strangers wrote: everything may be of any type and size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from homeserver.core.ids import InvalidIdentifier

MAX_TIME = 2**53
MAX_TEXT_BYTES = 255

T = TypeVar("T")


def identifier(parse: Callable[[str], T], value: Any) -> T | None:
    """The identifier that a value is, or None. `parse` is that of its type."""
    if not isinstance(value, str):
        return None
    try:
        return parse(value)
    except InvalidIdentifier:
        return None


def text(value: Any) -> str | None:
    """A text of 1 to 255 bytes that can be stored, or None."""
    if not isinstance(value, str) or "\x00" in value:
        return None
    return value if 0 < len(value.encode()) <= MAX_TEXT_BYTES else None


def milliseconds(value: Any) -> int | None:
    """A time or a duration, or None."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_TIME:
        return None
    return value


def mapping(value: Any) -> dict[str, Any]:
    """The object that a value is, or an empty one."""
    return value if isinstance(value, dict) else {}
