"""One lookup for all who ask for the same thing at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class SharedLookups(Generic[T]):
    """Runs at most one lookup per key at a time.

    A caller who is cancelled leaves; the lookup goes on for the others, and for the cache.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Deferred[T]]] = {}

    async def get(self, key: str, look_up: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `look_up()` gives or raises, or what the one already running for `key` does."""
        mine: Deferred[T] = Deferred()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(mine)
            return await mine
        self._waiting[key] = [mine]

        def finish(result: T | Failure) -> None:
            for each in self._waiting.pop(key):
                if isinstance(result, Failure):
                    each.errback(result)
                else:
                    each.callback(result)

        Deferred.fromCoroutine(look_up()).addBoth(finish)
        return await mine
