"""The types that options have beyond Python's own, and `option`, which declares one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
_MILLISECONDS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
_SIZE = re.compile(r"(\d+)([KMG]?)")
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Duration(int):
    """A length of time: a number of milliseconds.

    It is written with its unit: `500ms`, `10s`, `5m`, `1h`, `7d`, `2w`, `1y`.
    """

    PATTERN = f"^{_DURATION.pattern}$"

    @property
    def seconds(self) -> float:
        return self / 1000

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read the written form; raises ValueError."""
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return cls(int(match[1]) * _MILLISECONDS[match[2]])

    def __str__(self) -> str:
        for unit in ("w", "d", "h", "m", "s"):
            if self and self % _MILLISECONDS[unit] == 0:
                return f"{self // _MILLISECONDS[unit]}{unit}"
        return f"{int(self)}ms"


class Size(int):
    """A number of bytes, written as a number or with a unit of 1024: `64K`, `50M`, `1G`."""

    PATTERN = f"^{_SIZE.pattern}$"

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read the written form; raises ValueError."""
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return cls(int(match[1]) * _BYTES[match[2]])

    def __str__(self) -> str:
        for unit in ("G", "M", "K"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return str(int(self))


def ip_ranges(*ranges: str) -> tuple[IPNetwork, ...]:
    """Networks from their written form, for defaults."""
    return tuple(ipaddress.ip_network(each) for each in ranges)


@dataclass(frozen=True, slots=True)
class Notes:
    """What is known of an option besides its type and default."""

    doc: str
    check: Callable[[Any], str | None] | None = None
    minimum: int | None = None
    maximum: int | None = None
    secret: bool = False
    not_yet: bool = False
    example: str | None = None


_REQUIRED: Any = object()


def option(
    default: Any = _REQUIRED,
    doc: str = "",
    *,
    check: Callable[[Any], str | None] | None = None,
    minimum: int | None = None,
    maximum: int | None = None,
    secret: bool = False,
    not_yet: bool = False,
    example: str | None = None,
) -> Any:
    """Declare an option: a dataclass field with what the sample, schema and loader need.

    Parameters: `default` (absent: the option is required), `doc` (a sentence for operators),
    `check` (given the value, says what is wrong with it or None), `minimum` and `maximum` of a
    number, `secret` (the option may also be given as `NAME_file`), `not_yet` (validated, but no
    feature of this version reads it), `example` (YAML for the sample where the default says
    little).
    """
    notes = Notes(doc, check, minimum, maximum, secret, not_yet, example)
    metadata = {"notes": notes}
    if default is _REQUIRED:
        return field(metadata=metadata, repr=not secret)
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)
