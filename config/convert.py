"""From parsed YAML to the model, collecting every mistake with its key."""

from __future__ import annotations

import difflib
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from config.describe import (
    Option,
    all_options,
    choices,
    is_section,
    item_type,
    options_of,
    without_none,
)
from config.types import Duration, IPNetwork, Size

KeyPath: TypeAlias = tuple[str | int, ...]

_WRONG: Any = object()
"""Stands for a value that could not be converted; its problem is noted."""


def dotted(path: KeyPath) -> str:
    """`("listeners", 0, "port")` as `listeners[0].port`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _found(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f'the text "{value}"'
        case list():
            return "a list"
        case dict():
            return "keys and values"
        case _:
            return f"a {type(value).__name__} (put it in quotes for text)"


def expected(type_: Any) -> str:
    """What a type wants, in words."""
    type_, optional = without_none(type_)
    if optional:
        return expected(type_) + " or null"
    if (values := choices(type_)) is not None:
        return "one of " + ", ".join(f'"{value}"' for value in values)
    if (item := item_type(type_)) is not None:
        return f"a list, each item {expected(item)}"
    if is_section(type_):
        return "keys and values"
    names: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        Duration: 'a length of time with its unit, such as "500ms", "10s", "5m", "1h" or "7d"',
        Size: 'a size in bytes, or with a unit, such as "64K", "50M" or "1G"',
        IPNetwork: 'an IP range, such as "10.0.0.0/8" or "::1/128"',
    }
    return names[type_]


@dataclass(slots=True)
class Converter:
    """Converts one document. Relative paths are taken from `directory`.

    After `section`, `problems` holds (path of the key, what is wrong) for each mistake.
    """

    directory: Path
    root: type
    problems: list[tuple[KeyPath, str]] = field(default_factory=list)

    def section(self, section: type, value: Any, path: KeyPath = ()) -> Any:
        """Build a dataclass of the model from a mapping. Returns a placeholder on mistakes."""
        if value is None:
            value = {}
        if not isinstance(value, dict):
            return self._wrong_type(section, value, path, secret=False)
        before = len(self.problems)
        known = options_of(section)
        value = self._read_secret_files(known, value, path)
        for key in value:
            if key not in known:
                self._unknown_key(known, key, path)
        arguments = {}
        for option in known.values():
            where = (*path, option.name)
            if option.name in value:
                arguments[option.attribute] = self._option(option, value[option.name], where)
            elif option.required:
                example = f", for example {option.notes.example}" if option.notes.example else ""
                self.problems.append(
                    (where, f"is missing; expected {expected(option.type)}{example}")
                )
            else:
                arguments[option.attribute] = self._default(option.default)
        return section(**arguments) if len(self.problems) == before else _WRONG

    def _default(self, default: Any) -> Any:
        return self.directory / default if isinstance(default, Path) else default

    def _option(self, option: Option, value: Any, path: KeyPath) -> Any:
        notes = option.notes
        converted = self._value(option.type, value, path, secret=notes.secret)
        if converted is _WRONG or converted is None:
            return converted
        number = converted if isinstance(converted, int | float) else None
        wrong = None
        if number is not None and notes.minimum is not None and number < notes.minimum:
            wrong = f"must be at least {notes.minimum}"
        elif number is not None and notes.maximum is not None and number > notes.maximum:
            wrong = f"must be at most {notes.maximum}"
        elif notes.check is not None:
            wrong = notes.check(converted)
        if wrong is not None:
            shown = "" if notes.secret else f", found {_found(value)}"
            self.problems.append((path, wrong + shown))
            return _WRONG
        return converted

    def _value(self, type_: Any, value: Any, path: KeyPath, *, secret: bool) -> Any:
        inner, optional = without_none(type_)
        if value is None and optional:
            return None
        if is_section(inner):
            return self.section(inner, value, path)
        if (item := item_type(inner)) is not None:
            if not isinstance(value, list):
                return self._wrong_type(type_, value, path, secret=secret)
            items = [
                self._value(item, each, (*path, index), secret=secret)
                for index, each in enumerate(value)
            ]
            return tuple(items)
        try:
            return self._scalar(inner, value)
        except (ValueError, TypeError):
            return self._wrong_type(type_, value, path, secret=secret)

    def _scalar(self, type_: Any, value: Any) -> Any:
        """Convert one value that is neither list nor mapping; raises ValueError, TypeError."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if type_ is bool and isinstance(value, bool):
            return value
        if type_ is int and is_number and isinstance(value, int):
            return value
        if type_ is float and is_number:
            return float(value)
        if type_ is Size and is_number and isinstance(value, int) and value >= 0:
            return Size(value)
        if not isinstance(value, str):
            raise TypeError(type_)
        if type_ is str:
            return value
        if type_ is Path:
            return self.directory / Path(value).expanduser()
        if type_ in (Duration, Size):
            return type_.parse(value)
        if type_ is IPNetwork:
            return ipaddress.ip_network(value)
        if value in (choices(type_) or ()):
            return value
        raise ValueError(value)

    def _wrong_type(self, type_: Any, value: Any, path: KeyPath, *, secret: bool) -> Any:
        shown = "something else" if secret else _found(value)
        hint = ""
        inner, _ = without_none(type_)
        if isinstance(value, int | float) and str(value) in (choices(inner) or ()):
            hint = "; put it in quotes"
        self.problems.append((path, f"expected {expected(type_)}, found {shown}{hint}"))
        return _WRONG

    def _unknown_key(self, known: dict[str, Option], key: Any, path: KeyPath) -> None:
        self.problems.append(((*path, key), f"unknown key{self._suggest(known, str(key))}"))

    def _suggest(self, known: dict[str, Option], key: str) -> str:
        """Name the nearest key of the same section, or the same key of another."""
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        if near:
            return f'; did you mean "{near[0]}"?'
        for name, option in all_options(self.root):
            if option.name == key:
                return f'; did you mean "{name}"?'
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        return f'; the nearest known key is "{near[0]}"' if near else "; no keys are known here"

    def _read_secret_files(
        self, known: dict[str, Option], value: dict[Any, Any], path: KeyPath
    ) -> dict[Any, Any]:
        """Replace `NAME_file` of a secret option by NAME with the file's content."""
        result = dict(value)
        for option in known.values():
            name = option.name + "_file"
            if not option.notes.secret or name in known or name not in result:
                continue
            file = self._value(Path, result.pop(name), (*path, name), secret=False)
            if option.name in result:
                self.problems.append(((*path, name), f'give either this or "{option.name}"'))
            elif file is not _WRONG:
                try:
                    result[option.name] = file.read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    reason = (
                        os.strerror(error.errno)
                        if isinstance(error, OSError) and error.errno
                        else "not UTF-8"
                    )
                    self.problems.append(((*path, name), f"cannot read {file}: {reason}"))
                    result[option.name] = ""
        return result
