"""Reading the `Authorization` header of servers (Server-Server API, "Request Authentication").

    X-Matrix origin="a.example",destination="b.example",key="ed25519:1",sig="..."

Blanks around commas and equals signs, names in any case, values without quotes that hold colons
and the like, quoted values with backslash escapes, and unknown parameters are all taken. A
header may hold several credentials, one for each key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CREDENTIALS = 10
MAX_HEADER = 16 * 1024

_SCHEME = re.compile(r"x-matrix(?:[ \t]+|$)", re.IGNORECASE)
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)+")
_NAME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r'[^\s,"\\]+')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_BLANKS = re.compile(r"[ \t]*")


class MalformedAuthorization(ValueError):
    """The header is not one that servers send; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class XMatrix:
    """One credential: who signed what for whom. `destination` is None if it was left out."""

    origin: str
    destination: str | None
    key_id: str
    signature: str


def parse(header: str) -> list[XMatrix]:
    """The credentials in a header, at least one. Raises MalformedAuthorization.

    Several headers are given joined with commas.
    """
    if len(header) > MAX_HEADER:
        raise MalformedAuthorization("The Authorization header is too long.")
    position = _BLANKS.match(header).end()  # type: ignore[union-attr]  # matches always
    if _SCHEME.match(header, position) is None:
        raise MalformedAuthorization("The Authorization scheme is not X-Matrix.")
    found: list[dict[str, str]] = []
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is not None:
            found.append({})
            position = scheme.end()
        else:
            position = _parameter(header, position, found[-1])
        position = _separated(header, position, scheme is not None)
    if len(found) > MAX_CREDENTIALS:
        raise MalformedAuthorization("There are too many signatures.")
    return [_credential(parameters) for parameters in found]


def _parameter(header: str, position: int, parameters: dict[str, str]) -> int:
    """Read one parameter; the position after it."""
    name = _NAME.match(header, position)
    if name is None:
        raise MalformedAuthorization("A parameter has no name.")
    quoted = _QUOTED.match(header, name.end())
    value = quoted or _BARE.match(header, name.end())
    if value is None:
        raise MalformedAuthorization(f"The parameter {name[1]} has no value.")
    text = value[0] if quoted is None else _ESCAPE.sub(r"\1", quoted[1])
    if parameters.setdefault(name[1].lower(), text) != text:
        raise MalformedAuthorization(f"The parameter {name[1]} is there twice.")
    return value.end()


def _separated(header: str, position: int, is_optional: bool) -> int:
    """The position after a comma and blanks."""
    separator = _SEPARATOR.match(header, position)
    if separator is not None:
        return separator.end()
    end = _BLANKS.match(header, position).end()  # type: ignore[union-attr]  # matches always
    if end < len(header) and not is_optional:
        raise MalformedAuthorization("Parameters must have a comma between them.")
    return end


def _credential(parameters: dict[str, str]) -> XMatrix:
    for name in ("origin", "key", "sig"):
        if not parameters.get(name):
            raise MalformedAuthorization(f"The parameter {name} is missing.")
    return XMatrix(
        parameters["origin"], parameters.get("destination"), parameters["key"], parameters["sig"]
    )
