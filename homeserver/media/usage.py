"""When files were last asked for, written down now and then."""

from __future__ import annotations

from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from storage import media, media_thumbnails
from storage.database import Database
from storage.media_thumbnails import Form
from storage.transaction import Transaction

INTERVAL_S = 60.0
PRECISION_MS = 3_600_000
"""A file that is asked for again within this time is not noted again."""
_REMEMBERED = 50_000
_log = structlog.get_logger(__name__)


class Usage:
    """Gathers accesses of this process. Those of the last minute are lost in a crash."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
        self._files: dict[tuple[str, str], int] = {}
        self._thumbnails: dict[Form, int] = {}
        self._noted: dict[object, int] = {}
        self._loop = LoopingCall(self._flush_safely)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to write down."""
        self._loop.start(INTERVAL_S, now=False)

    async def stop(self) -> None:
        """Write down what was gathered, and end."""
        if self._loop.running:
            self._loop.stop()
        await self.flush()

    def seen(self, server_name: str, media_id: str) -> None:
        """A file was asked for."""
        self._note(self._files, (server_name, media_id))

    def seen_thumbnail(self, form: Form) -> None:
        """A thumbnail was asked for."""
        self._note(self._thumbnails, form)

    def _note(self, gathered: dict[Any, int], key: Any) -> None:
        now = int(self._clock.seconds() * 1000)
        if self._noted.get(key, 0) + PRECISION_MS > now:
            return
        if len(self._noted) >= _REMEMBERED:
            self._noted.clear()
        self._noted[key] = gathered[key] = now

    async def flush(self) -> None:
        """Write down what was gathered."""
        files, self._files = self._files, {}
        thumbnails, self._thumbnails = self._thumbnails, {}
        if files or thumbnails:
            await self._db.write(_touch, files, thumbnails)

    def _flush_safely(self) -> Deferred[None]:
        done = Deferred.fromCoroutine(self.flush())
        return done.addErrback(
            lambda failure: _log.warning("Accesses were not noted", reason=str(failure.value))
        )


def _touch(
    txn: Transaction, files: dict[tuple[str, str], int], thumbnails: dict[Form, int]
) -> None:
    # Always in the same order, so that processes do not wait for each other in a circle.
    media.touch(txn, [(*key, ts) for key, ts in sorted(files.items())])
    media_thumbnails.touch(txn, sorted(thumbnails.items()))
