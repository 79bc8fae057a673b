"""What waits for one server, on plain data.

A destination's queue is complete, or it is `behind`: then what it misses is in the log, from
`loaded` on, and nothing is put into memory for it until it has been reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from storage.destinations import SHARDS, DestinationRow, shard_of

__all__ = ["SHARDS", "Destination", "Item", "Outgoing", "shard_of"]

MAX_QUEUE = 500
"""PDUs, and EDUs, that wait in memory for one destination."""
MAX_VOLATILE = 1000
"""Users who type, and users with a new presence, that a destination is to be told of."""
FIRST_INTERVAL_MS = 2_000
MAX_INTERVAL_MS = 6 * 60 * 60 * 1000
KEEP_FOR_ATTEMPTS = 6
"""After so many failures in a row what is in memory for a destination is let go."""
LONG_DEAD_MS = 60 * 60 * 1000
"""After so long only the newest events of each room are sent."""
HEARD_PAUSE_MS = 2_000
MAX_HEARD_PAUSE_MS = 5 * 60 * 1000
"""Between an attempt that failed and the next one because the destination was heard from. It
grows with those that are in vain: not everybody who speaks can be reached."""


class Item(NamedTuple):
    """A PDU or an EDU as it is sent. All destinations share it.

    `apart`: the servers in the room do not tell that it goes to this destination.
    """

    pos: int
    body: bytes
    apart: bool = False


class Outgoing(NamedTuple):
    """A transaction on its way, the same in each attempt."""

    txn_id: str
    body: bytes
    pdus: tuple[Item, ...]
    edus: int
    after: int
    """What the destination has got before it."""
    to_device_upto: int
    """How far the messages for devices will be delivered with it."""


class Destination:
    """See the module. Times are in milliseconds."""

    __slots__ = (
        "apart_rows",
        "attempts",
        "behind",
        "catch_up",
        "catch_up_upto",
        "edus",
        "failing_since",
        "gone",
        "held_at",
        "interval",
        "last_attempt",
        "loaded",
        "max_pdus",
        "name",
        "pardons",
        "pdus",
        "presence",
        "retry_at",
        "running",
        "shard",
        "to_device_after",
        "to_device_deleted",
        "to_device_upto",
        "transaction",
        "typing",
        "written",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.shard = shard_of(name)
        self.pdus: deque[Item] = deque()
        self.edus: deque[Item] = deque()
        self.typing: dict[object, bytes] = {}
        self.presence: dict[object, bytes] = {}
        self.transaction: Outgoing | None = None
        self.running = False
        self.gone = False
        # Where the queue is not complete.
        self.behind = False
        self.loaded = 0
        self.catch_up: list[int] | None = None
        self.catch_up_upto = 0
        # Messages for devices stay in their table: those in after < pos <= upto are waiting.
        self.to_device_upto = 0
        self.to_device_after = 0
        self.to_device_deleted = 0
        # Back-off.
        self.failing_since: int | None = None
        self.retry_at = 0
        self.interval = 0
        self.attempts = 0
        self.last_attempt = 0
        self.pardons = 0
        self.max_pdus = 50
        # What the tables have.
        self.written: DestinationRow | None = None
        self.apart_rows = False
        self.held_at = -1

    @property
    def has_work(self) -> bool:
        """Whether there is anything to send, or to look for."""
        return bool(
            self.transaction is not None
            or self.pdus
            or self.edus
            or self.behind
            or self.to_device_upto > self.to_device_after
            or self.typing
            or self.presence
        )

    def cursor(self, read_pos: int) -> int:
        """Up to where the destination has got everything; `read_pos`: how far the log was read."""
        if self.transaction is not None:
            return self.transaction.after
        if self.catch_up is not None:
            return self.loaded
        first = [queue[0].pos for queue in (self.pdus, self.edus) if queue]
        if first:
            return min(first) - 1
        return self.loaded if self.behind else read_pos

    def put(self, item: Item, *, is_edu: bool) -> bool:
        """Queue what is new; False if there is no room, and the destination is now behind."""
        queue = self.edus if is_edu else self.pdus
        if len(queue) >= MAX_QUEUE:
            self.behind = True
            self.loaded = item.pos - 1
            return False
        queue.append(item)
        return True

    def put_volatile(self, kind: str, key: object, body: bytes) -> None:
        """Queue what replaces an earlier one of the same key, and may be lost."""
        if self.failing_since is not None or self.behind:
            return
        waiting = self.typing if kind == "typing" else self.presence
        waiting.pop(key, None)
        if len(waiting) < MAX_VOLATILE:
            waiting[key] = body

    def delivered(self) -> None:
        """The transaction arrived."""
        sent = self.transaction
        assert sent is not None
        self.transaction = None
        self.to_device_after = max(self.to_device_after, sent.to_device_upto)
        self.failing_since = None
        self.attempts = self.interval = self.pardons = 0

    def retry(self, now: int) -> None:
        """Forget how often it could not be reached: it is tried again at once."""
        self.attempts = self.interval = self.pardons = 0
        self.retry_at = now

    def heard_from(self, now: int) -> bool:
        """Forget how often it could not be reached; whether `retry_at` is earlier by that."""
        pause = min(HEARD_PAUSE_MS << min(self.pardons, 20), MAX_HEARD_PAUSE_MS)
        soon = max(now, self.last_attempt + pause)
        self.attempts = self.interval = 0
        if self.retry_at <= soon:
            return False
        self.retry_at = soon
        self.pardons += 1
        return True

    def failed(self, now: int, random: Random, retry_after: int | None = None) -> list[int]:
        """The destination could not be reached, or refused.

        Returns the positions of events that must be noted for it: `Item.apart`, no longer in
        memory.
        """
        self.attempts += 1
        self.last_attempt = now
        if self.failing_since is None:
            self.failing_since = now
        self.interval = min(max(self.interval * 2, FIRST_INTERVAL_MS), MAX_INTERVAL_MS)
        wait = int(self.interval * random.uniform(0.75, 1.25))
        self.retry_at = now + min(max(wait, retry_after or 0), MAX_INTERVAL_MS)
        self.typing.clear()
        self.presence.clear()
        long_dead = now - self.failing_since >= LONG_DEAD_MS
        return self.let_go() if self.attempts >= KEEP_FOR_ATTEMPTS or long_dead else []

    def let_go(self) -> list[int]:
        """Empty the queue, which the log can fill again; see `failed`."""
        apart = [item.pos for item in self._items() if item.apart]
        if self.transaction is not None or self.pdus or self.edus or self.catch_up is not None:
            self.loaded = self.cursor(self.loaded)
            self.behind = True
        self.transaction = None
        self.catch_up = None
        self.pdus.clear()
        self.edus.clear()
        return apart

    def _items(self) -> Iterator[Item]:
        if self.transaction is not None:
            yield from self.transaction.pdus
        yield from self.pdus
        yield from self.edus

    def too_large(self) -> None:
        """The transaction is too large for the destination: the next ones have fewer PDUs."""
        if self.transaction is not None:
            self.max_pdus = max(len(self.transaction.pdus) // 2, 1)

    def is_long_dead(self, now: int) -> bool:
        """Whether it has been unreachable for so long that it gets the newest events only."""
        return self.failing_since is not None and now - self.failing_since >= LONG_DEAD_MS
