"""What answers have in common that are computed at about the same time.

One message wakes every client in its room, and most of them were up to the same position before.
What they are told of the room's log is the same then, and is read once. The position of the clock
belongs to each key: what is read at one position stays true of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from homeserver.cache import Cache
from storage import relations, timeline
from storage.events import EventRow
from storage.transaction import Transaction

KEPT_S = 10.0
MAX_ROWS = 50
"""Rows of one timeline that are kept."""

T = TypeVar("T")


class SharedReads:
    """Used by all threads of a process that read the database."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._kept: Cache[tuple[Any, ...], Any] = Cache(
            "shared_reads", _size, share=0.03, lives_s=KEPT_S, seconds=seconds
        )
        self.caches = (self._kept,)

    def newest(
        self, txn: Transaction, room_nid: int, after: int, upto: int, limit: int
    ) -> Sequence[EventRow]:
        """`storage.timeline.newest`; `upto` is the position of the transaction's snapshot."""
        return self._find(
            ("newest", room_nid, after, upto, limit),
            lambda: timeline.newest(txn, room_nid, after, upto, limit),
            lambda rows: len(rows) <= MAX_ROWS,
        )

    def related(self, txn: Transaction, event_ids: Sequence[str], now: int) -> frozenset[str]:
        """`storage.relations.with_children`; `now` is the position of the snapshot."""
        return self._find(
            ("related", now, *event_ids),
            lambda: relations.with_children(txn, event_ids),
            lambda _: len(event_ids) <= MAX_ROWS,
        )

    def _find(self, key: tuple[Any, ...], read: Callable[[], T], keep: Callable[[T], bool]) -> T:
        known: T | None = self._kept.get(key)
        if known is not None:
            return known
        found = read()
        if keep(found):
            self._kept[key] = found
        return found


def _size(key: tuple[Any, ...], found: Any) -> int:
    if isinstance(found, frozenset):
        return 300 + 120 * (len(found) + len(key))
    return 300 + sum(1_000 + len(row.json) for row in found)
