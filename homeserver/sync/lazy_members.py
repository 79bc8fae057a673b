"""Which member events each device was sent, so that lazy loading need not repeat them.

Client-server API, "Lazy-loading room members". A member event counts as sent only for requests
whose `since` is not before the answer that it was in: an answer that was lost on the way is no
answer. It is a cache: what it forgets is sent again, which clients take without harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple

from cachetools import LRUCache

MAX_MEMBERS = 500
"""Members remembered for one device and room."""


class Reading(NamedTuple):
    """Who reads which room."""

    user_id: str
    device_id: str
    room_nid: int


class SentMembers:
    """Safe to use from many threads."""

    def __init__(self, devices_and_rooms: int = 20_000) -> None:
        self._sent: LRUCache[Reading, dict[str, tuple[str, int]]] = LRUCache(devices_and_rooms)
        self._lock = Lock()

    def was_sent(self, reading: Reading, since: int, member: str, event_id: str) -> bool:
        """Whether a client that has the answer of `since` has this member event."""
        with self._lock:
            known = self._sent.get(reading, {}).get(member)
        return known is not None and known[0] == event_id and known[1] <= since

    def add(self, reading: Reading, now: int, sent: Iterable[tuple[str, str]]) -> None:
        """The answer of position `now` has these (user ID, event ID)."""
        with self._lock:
            known = self._sent.setdefault(reading, {})
            for member, event_id in sent:
                if known.get(member, ("", 0))[0] != event_id:
                    known[member] = (event_id, now)
            while len(known) > MAX_MEMBERS:
                del known[next(iter(known))]
