"""Encoding large answers in slices, between which the reactor does other work.

Encoding holds the interpreter, in whatever thread: an answer of thousands of rooms at once would
let everybody else wait. What is large in an answer should be encoded already, in parts, where it
was read (`msgspec.Raw`): what is left to do then grows with the number of entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from homeserver.web.responses import encode_json

ENTRIES = 1000
"""Of a JSON object that are encoded at a time. With as much to encode as the summary of a room and
some kilobytes of encoded JSON in each: a few milliseconds. Fewer would cost more altogether."""
_LISTED = 200
_SMALL = 1000
"""Bytes that are next to no work."""


def encode_list(values: list[Any]) -> msgspec.Raw:
    """A JSON array; for threads, as it gives the interpreter away in between."""
    if len(values) <= _LISTED:
        return msgspec.Raw(encode_json(values))
    parts = [
        encode_json(values[start : start + _LISTED])[1:-1]
        for start in range(0, len(values), _LISTED)
    ]
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")


def slices(value: Any, depth: int) -> Iterator[bytes | memoryview]:
    """Parts of the JSON of a value, which are to be joined.

    Parameters: `depth`, below how many levels of objects there are those that are cut up.
    """
    if type(value) is not dict or not value:
        yield encode_json(value)
    elif depth:
        start = b"{"
        for name, part in value.items():
            yield start + encode_json(name) + b":"
            yield from slices(part, depth - 1)
            start = b","
        yield b"}"
    else:
        start = b"{"
        names = list(value)
        for first in range(0, len(names), ENTRIES):
            part = {name: value[name] for name in names[first : first + ENTRIES]}
            yield start
            # Without a copy: copying megabytes is most of what is left to do.
            yield memoryview(encode_json(part))[1:-1]
            start = b","
        yield b"}"


def is_large(value: Any, depth: int) -> bool:
    """Whether a value has an object below so many levels of objects that has to be cut up."""
    if type(value) is not dict:
        return False
    if not depth:
        return len(value) > ENTRIES
    return any(is_large(part, depth - 1) for part in value.values())


class Slicer:
    """Encodes answers on the reactor thread."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    async def encode(self, value: Any, depth: int) -> bytes:
        """The JSON of a value; after each slice the reactor gets its turn. See `slices`."""
        parts = []
        for part in slices(value, depth):
            parts.append(part)
            if len(part) > _SMALL:
                turn: Deferred[None] = Deferred()
                self._clock.callLater(0, turn.callback, None)
                await turn
        return b"".join(parts)
