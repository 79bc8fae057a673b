"""What the dataclasses of the model say, in the form that loader, schema and sample read."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal

from config.types import IPNetwork, Notes

MISSING = dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a section: `name` in YAML, `attribute` of the dataclass, type and default."""

    name: str
    attribute: str
    type: Any
    default: Any
    notes: Notes

    @property
    def required(self) -> bool:
        return self.default is MISSING


@cache
def options_of(section: type) -> dict[str, Option]:
    """The options of a section by their name in YAML."""
    hints = typing.get_type_hints(section)
    found: dict[str, Option] = {}
    for field in dataclasses.fields(section):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        name = field.name.rstrip("_")
        found[name] = Option(name, field.name, hints[field.name], default, field.metadata["notes"])
    return found


def without_none(type_: Any) -> tuple[Any, bool]:
    """Split `X | None` into X and whether None was there."""
    if type_ is IPNetwork or typing.get_origin(type_) not in (UnionType, typing.Union):
        return type_, False
    members = [each for each in typing.get_args(type_) if each is not NoneType]
    if set(members) == set(typing.get_args(IPNetwork)):
        return IPNetwork, NoneType in typing.get_args(type_)
    return members[0], len(members) < len(typing.get_args(type_))


def item_type(type_: Any) -> Any | None:
    """X of `tuple[X, ...]`; None for other types."""
    return typing.get_args(type_)[0] if typing.get_origin(type_) is tuple else None


def choices(type_: Any) -> tuple[str, ...] | None:
    """The values of a Literal; None for other types."""
    return typing.get_args(type_) if typing.get_origin(type_) is Literal else None


def is_section(type_: Any) -> bool:
    return dataclasses.is_dataclass(type_) and "notes" in getattr(
        next(iter(dataclasses.fields(type_)), None), "metadata", {"notes": None}
    )


def all_options(section: type, prefix: str = "") -> Iterator[tuple[str, Option]]:
    """Every option under a section with its dotted name, sections before what they hold."""
    for option in options_of(section).values():
        yield prefix + option.name, option
        inner, _ = without_none(option.type)
        if is_section(inner):
            yield from all_options(inner, f"{prefix}{option.name}.")
