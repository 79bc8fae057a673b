"""Storing what servers say of their keys: answers that come together, in one transaction.

The state of a large room has members of many servers, all of which are asked at the same time.
Nobody waits for others to answer: whatever came while a transaction was under way goes into the
next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from storage import server_keys
from storage.database import Database
from storage.errors import DatabaseUnavailable
from storage.server_keys import Answer, KeyRow

MOST = 100
"""Answers in one transaction."""


class KeyWrites:
    """Stores answers, in the order in which they came.

    Parameters: `now_ms` tells the time; `learn` is told once of the keys of those servers whose
    answers were stored together, before those who wait for it.
    """

    def __init__(
        self,
        db: Database,
        now_ms: Callable[[], int],
        learn: Callable[[Sequence[KeyRow]], object],
    ) -> None:
        self._db = db
        self._now_ms = now_ms
        self._learn = learn
        self._waiting: list[tuple[Sequence[Answer], Deferred[None]]] = []
        self._is_writing = False

    async def store(self, answers: Sequence[Answer]) -> None:
        """See `storage.server_keys.store`; what that returns, `learn` is told."""
        stored: Deferred[None] = Deferred()
        self._waiting.append((answers, stored))
        if not self._is_writing:
            self._is_writing = True
            # Never fails: those who wait are told.
            Deferred.fromCoroutine(self._write())
        await stored

    async def _write(self) -> None:
        try:
            while self._waiting:
                count = 1
                size = len(self._waiting[0][0])
                while count < len(self._waiting) and size < MOST:
                    size += len(self._waiting[count][0])
                    count += 1
                together, self._waiting = self._waiting[:count], self._waiting[count:]
                await self._write_together(together)
        finally:
            self._is_writing = False

    async def _write_together(
        self, together: Sequence[tuple[Sequence[Answer], Deferred[None]]]
    ) -> None:
        answers = [answer for each, _ in together for answer in each]
        try:
            rows = await self._db.write(server_keys.store, answers, self._now_ms())
            self._learn(rows)
        except Exception as error:
            # A database that is away is waited for once, and not for each.
            if len(together) == 1 or isinstance(error, DatabaseUnavailable):
                for _, stored in together:
                    stored.errback(error)
                return
            # Whatever it was that could not be stored: the others are no worse for it.
            for each in together:
                await self._write_together([each])
            return
        for _, stored in together:
            stored.callback(None)
