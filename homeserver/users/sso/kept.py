"""Something of a provider that is asked for rarely: by one request at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.interfaces import IReactorTime

from homeserver.core.types import JsonObject
from homeserver.semaphore import Semaphore
from homeserver.users.sso.people import ProviderFailed

PAUSE_S = 5.0
"""After a failure nobody asks again for so long, nor after something was renewed."""


class Kept:
    """Keeps what `fetch` gives for `seconds`. Where it fails, what was kept goes on to be used."""

    def __init__(
        self, clock: IReactorTime, seconds: float, fetch: Callable[[], Awaitable[JsonObject]]
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._fetch = fetch
        self._lock = Semaphore(1)
        self._value: JsonObject | None = None
        self._good_until = 0.0
        self._not_before = 0.0
        self._failure: ProviderFailed | None = None

    async def get(self) -> JsonObject:
        """What is kept, or is asked for now. Raises ProviderFailed."""
        if self._value is None or self._clock.seconds() >= self._good_until:
            await self._update(lambda: self._clock.seconds() >= self._good_until, pause=False)
        return self._current()

    async def renew(self) -> JsonObject:
        """What there is now, unless it was asked for a moment ago."""
        await self._update(lambda: True, pause=True)
        return self._current()

    async def _update(self, needed: Callable[[], bool], *, pause: bool) -> None:
        await self._lock.acquire()
        try:
            now = self._clock.seconds()
            if not needed() or now < self._not_before:
                return
            if pause:
                self._not_before = now + PAUSE_S
            try:
                self._value = await self._fetch()
            except ProviderFailed as error:
                self._failure = error
                self._not_before = self._clock.seconds() + PAUSE_S
            else:
                self._good_until = now + self._seconds
        finally:
            self._lock.release()

    def _current(self) -> JsonObject:
        if self._value is None:
            raise self._failure or ProviderFailed("it is being asked")
        return self._value
