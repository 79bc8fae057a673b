"""Dot-separated property paths, as in push rules and in the `event_fields` of filters.

Appendices, "Dot-separated property paths": `\\.` is a dot and `\\\\` a backslash inside a property
name; any other backslash stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

MAX_PATH_LENGTH = 1024
"""Longest path in characters that validated input may hold."""

PropertyPath = tuple[str, ...]


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""What `lookup` returns for a property that is not there (`None` is JSON's null)."""


def split_path(path: str) -> PropertyPath:
    """The property names of a path, unescaped."""
    if len(path) > MAX_PATH_LENGTH:
        return _split(path)
    return _split_cached(path)


def _split(path: str) -> PropertyPath:
    names: list[str] = []
    name: list[str] = []
    index = 0
    while index < len(path):
        char = path[index]
        if char == "\\" and path[index + 1 : index + 2] in (".", "\\"):
            name.append(path[index + 1])
            index += 2
            continue
        if char == ".":
            names.append("".join(name))
            name = []
        else:
            name.append(char)
        index += 1
    names.append("".join(name))
    return tuple(names)


_split_cached = lru_cache(maxsize=4096)(_split)


def lookup(source: Mapping[str, Any], path: PropertyPath) -> Any:
    """The value at `path`, or `ABSENT`. Only objects have properties: lists are not entered."""
    value: Any = source
    for name in path:
        # Nearly always it is a dict; to find out about other mappings takes far longer.
        if not (type(value) is dict or isinstance(value, Mapping)) or name not in value:
            return ABSENT
        value = value[name]
    return value
