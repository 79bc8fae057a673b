"""How much waits of what other servers sent: for the metrics."""

from __future__ import annotations

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from storage import received
from storage.database import Database
from storage.received import Size

COUNT_EVERY_S = 15.0

_log = structlog.get_logger(__name__)


class BacklogSize:
    """Counts what waits now and then. It is the same in every process of the server."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
        self._size = Size(0, None)
        self._loop = LoopingCall(self._count_safely)
        self._loop.clock = clock

    @property
    def events(self) -> int:
        """Events that wait."""
        return self._size.events

    @property
    def oldest_s(self) -> float:
        """Seconds that the oldest has waited; 0 if none waits."""
        since = self._size.since
        return 0.0 if since is None else max(0.0, self._clock.seconds() - since / 1000)

    def start(self) -> None:
        """Begin to count."""
        self._loop.start(COUNT_EVERY_S, now=True)

    def stop(self) -> None:
        """Count no more."""
        if self._loop.running:
            self._loop.stop()

    async def count(self) -> None:
        """Count now. Raises StorageError."""
        self._size = await self._db.read(received.size)

    def _count_safely(self) -> Deferred[None]:
        def failed(failure: Failure) -> None:
            _log.warning("Waiting events are not counted", reason=failure.getErrorMessage())

        return Deferred.fromCoroutine(self.count()).addErrback(failed)
