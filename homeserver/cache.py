"""Caches that are bounded by bytes, and share one bound.

A `Cache` is a mapping that forgets what was not used for longest. A homeserver has one `Caches`,
which bounds the bytes of all of them together (`caches.total_bytes` of the configuration): a cache
may take what the others do not use, up to its share, and when all is taken, the one that has most
for its share gives way. So nothing is set aside for caches that a server does not need, and a flood
through one cache does not empty the others.

A part of the homeserver makes its caches by itself, and names them in an attribute `caches`:

    self._heads: Cache[str, CachedHead] = Cache("room_heads", lambda _, head: head.size)
    self.caches = (self._heads,)

The composition root has `Caches.adopt` take in those of all services; one that nobody adopts is
bounded by `ALONE` bytes. What is kept should be `bytes` or flat tuples where it is large: they cost
a third of parsed JSON, and the garbage collector need not look at them.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from threading import RLock
from typing import Any, Generic, TypeVar, overload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

ENTRY = 200
"""Bytes of an entry without what is in it: its places in the table and in the order of use, its
size and its end."""
ALONE = 8 << 20
"""Bytes of a cache that was not adopted."""
LARGEST = 4
"""An entry larger than this part of a cache's share is not kept: it would push too much out."""
_ROUND = 1024
"""This part of the bound is made free at a time, so that not each insertion has to look."""
_STEP = 64
"""This part of the bound is taken from the largest cache before they are compared again."""
_DEEPEST = 6


def weigh(value: object, depth: int = _DEEPEST) -> int:
    """An estimate of the bytes that a value takes, with what is in it.

    What several values share is counted for each, so it is rather too much. It costs about 0.1 µs
    for each string or number: for large values a size function of their own is better.
    """
    size = sys.getsizeof(value, 64)
    if isinstance(value, (str, bytes, int, float)) or value is None or depth == 0:
        return size
    if isinstance(value, dict):
        return size + sum(weigh(k, depth - 1) + weigh(v, depth - 1) for k, v in value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        return size + sum(weigh(part, depth - 1) for part in value)
    slots: Iterable[str] = getattr(type(value), "__slots__", ())
    names = (slots,) if isinstance(slots, str) else slots
    size += sum(weigh(getattr(value, name, None), depth - 1) for name in names)
    fields = getattr(value, "__dict__", None)
    return size + (weigh(fields, depth - 1) if fields else 0)


def weigh_both(key: object, value: object) -> int:
    """`weigh` for a key and its value: the size function of caches of small things."""
    return weigh(key) + weigh(value)


class Cache(Generic[K, V]):
    """A mapping that forgets what was not used for longest. Safe to use from several threads.

    Parameters:
        name: in metrics; a word of ours.
        size: bytes of a key and its value; `ENTRY` is added. What grows while it is kept has to be
            put in again.
        share: the largest part of what all caches may take that this one may; and how much it may
            have in comparison with others when all is taken. The shares need not add up to 1.
        lives_s, seconds: how long entries are good, and the clock that says so. Without them:
            until they are pushed out.
        dropped: called for what is pushed out or not kept, in whatever thread needs the space,
            with a lock held: it must do no more than note it.
    """

    __slots__ = (
        "_dropped",
        "_entries",
        "_lives_s",
        "_seconds",
        "_size",
        "_within",
        "bytes",
        "evictions",
        "hits",
        "misses",
        "name",
        "share",
    )

    def __init__(
        self,
        name: str,
        size: Callable[[K, V], int] = weigh_both,
        *,
        share: float = 0.25,
        lives_s: float = math.inf,
        seconds: Callable[[], float] | None = None,
        dropped: Callable[[K, V], object] | None = None,
    ) -> None:
        self.name = name
        self.share = share
        self.bytes = 0
        """An estimate of what it takes."""
        self.hits = 0
        """Counted without a lock: a few may be lost where threads meet."""
        self.misses = 0
        self.evictions = 0
        self._entries: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        self._size = size
        self._lives_s = lives_s
        self._seconds = seconds
        self._dropped = dropped
        self._within = Caches(ALONE)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Whether there is an entry; this is no use of it, and counts as neither hit nor miss."""
        entry = self._entries.get(key)
        return entry is not None and not self._is_over(entry)

    def __iter__(self) -> Iterator[K]:
        """The keys that there are now."""
        with self._within.lock:
            return iter(list(self._entries))

    def items(self) -> list[tuple[K, V]]:
        """The entries that there are now; this is no use of them."""
        with self._within.lock:
            return [(k, entry[0]) for k, entry in self._entries.items() if not self._is_over(entry)]

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, which is used by that."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return default
        if self._seconds is not None and entry[2] <= self._seconds():
            self.misses += 1
            self.pop(key)
            return default
        try:
            self._entries.move_to_end(key)
        except KeyError:
            pass  # another thread has just pushed it out
        self.hits += 1
        return entry[0]

    def get_many(self, keys: Collection[K]) -> dict[K, V]:
        """The values of those of the keys that have one, as by `get`."""
        if self._seconds is not None:
            return {key: value for key in keys if (value := self.get(key)) is not None}
        entries, use = self._entries, self._entries.move_to_end
        found: dict[K, V] = {}
        for key in keys:
            entry = entries.get(key)
            if entry is not None:
                found[key] = entry[0]
                try:
                    use(key)
                except KeyError:
                    pass  # another thread has just pushed it out
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    def put(self, key: K, value: V, lives_s: float | None = None) -> None:
        """Keep a value; what is too large for the cache is not kept.

        Parameters: `lives_s`, how long it is good, where that differs from the cache's.
        """
        size = self._size(key, value) + ENTRY
        until = math.inf
        if self._seconds is not None:
            until = self._seconds() + (self._lives_s if lives_s is None else lives_s)
        within = self._within
        with within.lock:
            old = self._entries.pop(key, None)
            grown = size if old is None else size - old[1]
            if size * LARGEST > within.limit * self.share:
                grown -= size
                self.evictions += 1
                if self._dropped is not None:
                    self._dropped(key, value)
            else:
                self._entries[key] = (value, size, until)
            self.bytes += grown
            within.bytes += grown
            most = int(within.limit * self.share)
            if self.bytes > most:
                self.drop_oldest(self.bytes - most + most // _ROUND)
            if within.bytes > within.limit:
                within.shrink()

    __setitem__ = put

    def update(self, entries: Mapping[K, V]) -> None:
        """Keep several values."""
        for key, value in entries.items():
            self.put(key, value)

    @overload
    def pop(self, key: K) -> V | None: ...
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def pop(self, key: K, default: Any = None) -> Any:
        """Take an entry out, if there is one; its value."""
        with self._within.lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return default
            self.bytes -= entry[1]
            self._within.bytes -= entry[1]
            return entry[0]

    def clear(self) -> None:
        """Take everything out."""
        with self._within.lock:
            self._entries.clear()
            self._within.bytes -= self.bytes
            self.bytes = 0

    def drop_oldest(self, wanted: int) -> None:
        """Push out what was not used for longest until so many bytes are free."""
        with self._within.lock:
            freed = 0
            while freed < wanted and self._entries:
                key, (value, size, _) = self._entries.popitem(last=False)
                freed += size
                self.evictions += 1
                if self._dropped is not None:
                    self._dropped(key, value)
            self.bytes -= freed
            self._within.bytes -= freed

    def drop_old(self) -> None:
        """Take out what is good no longer."""
        if self._seconds is None:
            return
        with self._within.lock:
            for key in [key for key, entry in self._entries.items() if self._is_over(entry)]:
                self.pop(key)

    def move(self, within: Caches) -> None:
        """For `Caches.adopt`: count for these caches from now on."""
        self._within.bytes -= self.bytes
        within.bytes += self.bytes
        self._within = within

    def _is_over(self, entry: tuple[V, int, float]) -> bool:
        return self._seconds is not None and entry[2] <= self._seconds()


class Caches:
    """The caches of one homeserver, which share a bound.

    Parameters: `limit`, bytes that all may take together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        """An estimate of what all take."""
        self.lock = RLock()
        self._members: list[Cache[Any, Any]] = []

    def __iter__(self) -> Iterator[Cache[Any, Any]]:
        """The caches, in the order in which they came."""
        return iter(list(self._members))

    def adopt(self, cache: Cache[Any, Any]) -> None:
        """Have a cache share the bound. To be called before anybody else uses it."""
        cache.move(self)
        self._members.append(cache)

    def resize(self, limit: int) -> None:
        """Set another bound, and push out what is too much."""
        with self.lock:
            self.limit = limit
            for cache in self._members:
                cache.drop_oldest(cache.bytes - int(limit * cache.share))
            self.shrink()

    def shrink(self) -> None:
        """If there is too much, push out where most is for its share."""
        with self.lock:
            if self.bytes <= self.limit:
                return
            goal = self.limit - self.limit // _ROUND
            step = self.limit // _STEP + 1
            while self.bytes > goal:
                largest = max(self._members, key=lambda cache: cache.bytes / cache.share)
                if not largest.bytes:
                    return
                largest.drop_oldest(min(self.bytes - goal, step))

    def drop_old(self) -> None:
        """Take out what is good no longer: to be called now and then."""
        for cache in self:
            cache.drop_old()
