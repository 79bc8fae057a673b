"""How many requests of a kind are worked on at the same time, for each that asks and in all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from homeserver.core.errors import limit_exceeded
from homeserver.semaphore import Semaphore

RETRY_AFTER_MS = 2000


@dataclass(slots=True)
class _Line:
    places: Semaphore
    asking: int = field(default=0)


class Turns:
    """`each` requests of one asker and `total` in all have a turn; `waiting` of an asker wait."""

    def __init__(self, each: int, total: int, waiting: int) -> None:
        self._each = each
        self._bound = each + waiting
        self._total = Semaphore(total)
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        """How many askers have a turn or wait."""
        return len(self._lines)

    @asynccontextmanager
    async def turn(self, asker: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it. Raises MatrixError (429) if too many wait already."""
        line = self._lines.get(asker)
        if line is None:
            line = self._lines[asker] = _Line(Semaphore(self._each))
        if line.asking >= self._bound:
            raise limit_exceeded(RETRY_AFTER_MS)
        line.asking += 1
        try:
            # First its own: who sends many takes no place of others while they wait.
            await line.places.acquire()
            try:
                await self._total.acquire()
                try:
                    yield
                finally:
                    self._total.release()
            finally:
                line.places.release()
        finally:
            line.asking -= 1
            if not line.asking:
                del self._lines[asker]
