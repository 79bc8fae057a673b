"""PostgreSQL's COPY in place of INSERTs of many rows (PostgreSQL, "COPY", "Text Format")."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from storage.errors import InvalidText

_PLAIN_INSERT = re.compile(
    r"\s*INSERT INTO (\w+) \(([\w, ]+)\) VALUES \(\?(?:, \?)*\)\s*", re.IGNORECASE
)
_NONE = type(None)
_SIMPLE = {str, int, bool, _NONE}
_TEXT_OR_NONE = {str, _NONE}
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@lru_cache(maxsize=256)
def copy_statement(sql: str) -> str | None:
    """The COPY that does what an `INSERT INTO t (a, b) VALUES (?, ?)` does for many rows.

    None for statements that do more: COPY knows no ON CONFLICT.
    """
    match = _PLAIN_INSERT.fullmatch(sql)
    return f"COPY {match[1]} ({match[2]}) FROM STDIN" if match is not None else None


def copy_text(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows of None, bool, int, float, str and bytes as COPY reads them.

    Raises InvalidText for U+0000, UnicodeEncodeError for lone surrogates, ValueError for values
    of other types.
    """
    columns: list[Iterable[str]] = []
    alike: list[str] = []
    count = 0
    for values in zip(*rows, strict=True):
        count = len(values)
        one = _constant(values)
        if one is not None:
            alike.append(one)
            continue
        if alike:
            columns.append(("\t".join(alike),) * count)
            alike = []
        columns.append(_column(values))
    if alike:
        columns.append(("\t".join(alike),) * count)
    text = "\n".join(map("\t".join, zip(*columns, strict=True)))
    if columns:
        text += "\n"
    if "\x00" in text:
        raise InvalidText("Text holds U+0000.")
    return text.encode()


def _constant(values: Sequence[Any]) -> str | None:
    """What is written for all values of a column, if that is the same: as of the room, or of what
    nothing is said. Neighbours are then written in one go."""
    first = values[0]
    if type(first) not in _SIMPLE or first != values[-1] or values.count(first) < len(values):
        return None
    # Equal are values of different types as well, which are written differently.
    return _value(first) if len(set(map(type, values))) == 1 else None


def _column(values: Sequence[Any]) -> Iterable[str]:
    """The values of one column: most columns have values of one type, many of them none at all."""
    kinds = set(map(type, values))
    if kinds == _TEXT_OR_NONE:
        if _needs_escapes("".join(filter(None, values))):
            return map(_value, values)
        return ["\\N" if value is None else value for value in values]
    if len(kinds) > 1:
        return map(_value, values)
    (kind,) = kinds
    if kind is int:
        return map(str, values)
    if kind is bool:
        return ["t" if value else "f" for value in values]
    if kind is str and not _needs_escapes("".join(values)):
        return values
    return map(_value, values)


def _value(value: Any) -> str:
    try:
        return _FORMS[type(value)](value)
    except KeyError:
        if isinstance(value, str):
            return _string(value)
        if isinstance(value, int):
            return str(int(value))
        raise ValueError(f"COPY knows no {type(value).__name__}.") from None


def _string(value: str) -> str:
    return value.translate(_ESCAPES) if _needs_escapes(value) else value


def _needs_escapes(text: str) -> bool:
    # Most texts have nothing to escape, which is found out much faster than it is escaped.
    return "\\" in text or "\n" in text or "\t" in text or "\r" in text


_FORMS: dict[type, Callable[[Any], str]] = {
    str: _string,
    int: str,
    type(None): lambda value: "\\N",
    bool: lambda value: "t" if value else "f",
    bytes: lambda value: "\\\\x" + value.hex(),
    float: repr,
}
