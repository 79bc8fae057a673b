"""Tokens of pages of search results: opaque to clients, checked when they come back."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from homeserver.core import errors
from homeserver.core.ids import RoomID, UserID
from storage.message_words import Hit

GROUPS: dict[str, Callable[[str], str]] = {"room_id": RoomID.parse, "sender": UserID.parse}
_MAX = 2**62


class SearchToken(NamedTuple):
    """The page behind one result.

    Parameters: `counted`, results before it; `group`, key and value of the only group to go on
    with.
    """

    recent: bool
    behind: Hit
    counted: int
    group: tuple[str, str] | None = None

    def __str__(self) -> str:
        text = json.dumps([self.recent, *self.behind, self.counted, *(self.group or ())])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, *, recent: bool) -> SearchToken:
        """Raises MatrixError 400 `M_INVALID_PARAM`, also for a token of another order."""
        try:
            padded = text + "=" * (-len(text) % 4)
            values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            token = cls._of(values)
        except (binascii.Error, ValueError, RecursionError):
            token = None
        if token is None or token.recent is not recent:
            raise errors.invalid_param("`next_batch` is not a token of this search.")
        return token

    @classmethod
    def _of(cls, values: Any) -> SearchToken | None:
        if not isinstance(values, list) or len(values) not in (6, 8):
            return None
        recent, rank, *numbers = values[:6]
        if type(recent) is not bool or type(rank) not in (int, float) or not math.isfinite(rank):
            return None
        if not all(type(number) is int and abs(number) < _MAX for number in numbers):
            return None
        ts, event_nid, place, counted = numbers
        token = cls(recent, Hit(float(rank), ts, event_nid, max(place, 0)), max(counted, 0))
        if len(values) == 6:
            return token
        key, value = values[6:]
        if not isinstance(key, str) or key not in GROUPS or not isinstance(value, str):
            return None
        GROUPS[key](value)
        return token._replace(group=(key, value))
