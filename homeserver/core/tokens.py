"""The opaque position tokens of the client-server API.

`s<durable>_<ephemeral>` is a place between two responses of `/sync`: the position in the log of
durable facts, and in the counter of typing and presence. A third number, smaller than the first,
says up to where messages to the device were given out, when more were waiting; one after a `-`,
the same of sticky events.
`p<connection>_<durable>_<ephemeral>` is one of sliding sync: the first number says what the
connection was sent.
`t<depth>-<position>` is a place in the history of one room, for `/messages` and its like, which
take sync tokens too. Tokens come back from clients: whatever is not exactly what `str()` makes is
refused with 400 M_INVALID_PARAM.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from homeserver.core.errors import MatrixError, invalid_param

MAX_POSITION = 2**63 - 1

_NUMBER = "(0|[1-9][0-9]{0,18})"
_SYNC = re.compile(rf"s{_NUMBER}_{_NUMBER}(?:_{_NUMBER})?(?:-{_NUMBER})?")
_PLAIN_SYNC = re.compile("s(0|[1-9][0-9]{0,17})_(0|[1-9][0-9]{0,17})")
"""Of two numbers, neither of which can be out of range."""
_PLAIN_LENGTH = 38
_SLIDING = re.compile(rf"p{_NUMBER}_{_NUMBER}_{_NUMBER}")
_PAGINATION = re.compile(r"t(0|[1-9][0-9]{0,18})-(0|-?[1-9][0-9]{0,18})")


class SyncToken(NamedTuple):
    """A position of `/sync`."""

    durable: int
    ephemeral: int
    behind: int | None = None
    """Position up to which messages to the device were given out, if that is before `durable`."""
    sticky_behind: int | None = None
    """Position up to which sticky events were given out, if that is before `durable`."""

    @property
    def to_device(self) -> int:
        """Position up to which messages to the device were given out."""
        return self.durable if self.behind is None else self.behind

    @property
    def sticky(self) -> int:
        """Position up to which sticky events were given out."""
        return self.durable if self.sticky_behind is None else self.sticky_behind

    def __str__(self) -> str:
        text = f"s{self.durable}_{self.ephemeral}"
        text = text if self.behind is None else f"{text}_{self.behind}"
        return text if self.sticky_behind is None else f"{text}-{self.sticky_behind}"

    @classmethod
    def parse(cls, text: Any) -> SyncToken:
        """Raises MatrixError 400 M_INVALID_PARAM for anything but a sync token."""
        if not isinstance(text, str):
            raise _no_sync_token()
        # A long one is nobody's token, and would stay in memory.
        plain = _plain_sync(text) if len(text) <= _PLAIN_LENGTH else None
        if plain is not None:
            return plain
        found = _SYNC.fullmatch(text)
        if found is None:
            raise _no_sync_token()
        durable = _bounded(found[1])
        behind, sticky = (None if each is None else _bounded(each) for each in found.group(3, 4))
        if any(each is not None and each >= durable for each in (behind, sticky)):
            raise _no_sync_token()
        return cls(durable, _bounded(found[2]), behind, sticky)


# Clients that were told the same come back with the same.
@lru_cache(maxsize=256)
def _plain_sync(text: str) -> SyncToken | None:
    found = _PLAIN_SYNC.fullmatch(text)
    return None if found is None else SyncToken(int(found[1]), int(found[2]))


class PaginationToken(NamedTuple):
    """A place in a room: `depth` of the event, and its `position`, negative for fetched history."""

    depth: int
    position: int

    def __str__(self) -> str:
        return f"t{self.depth}-{self.position}"

    @classmethod
    def parse(cls, text: Any) -> PaginationToken:
        """Raises MatrixError 400 M_INVALID_PARAM for anything but a pagination token."""
        found = _PAGINATION.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise invalid_param("This is not a pagination token.")
        return cls(_bounded(found[1]), _bounded(found[2]))


class SlidingToken(NamedTuple):
    """A position of sliding sync."""

    connection: int
    """The number under which is kept what the connection was sent."""
    durable: int
    ephemeral: int

    def __str__(self) -> str:
        return f"p{self.connection}_{self.durable}_{self.ephemeral}"

    @classmethod
    def parse(cls, text: Any) -> SlidingToken:
        """Raises MatrixError 400 M_INVALID_PARAM for anything but a position of sliding sync."""
        found = _SLIDING.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise invalid_param("This is not a position of sliding sync.")
        return cls(_bounded(found[1]), _bounded(found[2]), _bounded(found[3]))


def parse_room_token(text: Any) -> PaginationToken | SyncToken:
    """A `from`, `to` or `at` parameter: a pagination token, or one of a sync in its place.

    Raises MatrixError 400 M_INVALID_PARAM.
    """
    if isinstance(text, str) and text.startswith("p"):
        token = SlidingToken.parse(text)
        return SyncToken(token.durable, token.ephemeral)
    if isinstance(text, str) and text.startswith("s"):
        return SyncToken.parse(text)
    return PaginationToken.parse(text)


def _no_sync_token() -> MatrixError:
    return invalid_param("This is not a token of /sync.")


def _bounded(digits: str) -> int:
    number = int(digits)
    if abs(number) > MAX_POSITION:
        raise invalid_param("The token is out of range.")
    return number
