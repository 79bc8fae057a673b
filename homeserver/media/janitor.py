"""Keeping the space that files take within its limits.

One process at a time does it, under a lease. What can be had or made again goes when a limit is
passed or nobody asked for it for long; what users sent goes only when the operator or they
themselves said so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.media.removal import MediaRemoval
from homeserver.media.sweeping import Sweeping
from storage import leases, media, media_failures, media_references, media_thumbnails
from storage.database import Database
from storage.media import MediaRow
from storage.transaction import Transaction

INTERVAL_S = 600.0
LEASE = "media-janitor"
LEASE_MS = 30 * 60_000
SWEEP_EVERY = 12
"""Rounds until what nobody knows of is looked for."""
_BATCH = 500
_FAILURES_KEPT_MS = 2 * 86_400_000
_log = structlog.get_logger(__name__)


class Caps(NamedTuple):
    """The most bytes of what can be had or made again; None: no limit."""

    remote: int | None
    thumbnails: int | None
    previews: int | None


class Keep(NamedTuple):
    """How long files are kept, in milliseconds; None: for ever."""

    local_unused: int | None
    local_age: int | None
    remote_unused: int | None
    remote_age: int | None
    redacted: int | None


class Janitor:
    """Does its rounds in the background."""

    def __init__(
        self,
        db: Database,
        removal: MediaRemoval,
        sweeping: Sweeping,
        clock: IReactorTime,
        caps: Caps,
        keep: Keep,
    ) -> None:
        self._db = db
        self._removal = removal
        self._sweeping = sweeping
        self._clock = clock
        self._caps = caps
        self._keep = keep
        self._rounds = 0
        self._running: Deferred[None] | None = None
        self._loop = LoopingCall(self._go)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin."""
        self._loop.start(INTERVAL_S, now=False)

    async def stop(self) -> None:
        """End, after the transaction under way."""
        if self._loop.running:
            self._loop.stop()
        if self._running is not None:
            self._running.cancel()
            await self._running

    async def round(self) -> bool:
        """Do all that is due; False if another process is at it."""
        now = self._now()
        owner = self._db.process_token
        if not await self._db.write(leases.claim, [LEASE], owner, now, LEASE_MS):
            return False
        try:
            await self._db.write(self._forget, now)
            await self._take_back(now)
            await self._retire(now)
            await self._make_room()
            await self._db.write(media.lost_previews)
            if self._rounds % SWEEP_EVERY == 0:
                await self._db.write(media_references.notice_purged)
                await self._sweeping.sweep()
            self._rounds += 1
        finally:
            await self._db.write(leases.release, [LEASE], owner)
        return True

    def _go(self) -> Deferred[None]:
        async def guarded() -> None:
            try:
                await self.round()
            except Exception as error:
                _log.warning("Old files were not removed", reason=str(error))

        self._running = Deferred.fromCoroutine(guarded())
        return self._running.addErrback(lambda _: None)

    @staticmethod
    def _forget(txn: Transaction, now: int) -> None:
        while media.delete_expired(txn, now, 1000):
            pass
        media_failures.prune(txn, now - _FAILURES_KEPT_MS)
        media_references.notice_redacted(txn, now)

    async def _take_back(self, now: int) -> None:
        """Remove what was sent in events that are all redacted."""
        if self._keep.redacted is None:
            return
        before = now - self._keep.redacted

        def find(txn: Transaction) -> list[MediaRow]:
            found = media_references.taken_back(txn, before, _BATCH)
            rows = [media.get(txn, *name) for name in found]
            return [row for row in rows if row is not None and row.sha256 is not None]

        removed = await self._removal.delete_all(find)
        if removed:
            _log.info("Files of redacted events were removed", files=len(removed))

    async def _retire(self, now: int) -> None:
        """Remove what is old, or was not asked for."""
        keep = self._keep
        for kind, unused in ((media.LOCAL, keep.local_unused), (media.REMOTE, keep.remote_unused)):
            if unused is not None:
                await self._removal.delete_all(_unused(kind, now - unused))
        for kind, age in ((media.LOCAL, keep.local_age), (media.REMOTE, keep.remote_age)):
            if age is not None:
                await self._removal.delete_all(_older(kind, now - age))

    async def _make_room(self) -> None:
        for kind, cap in ((media.REMOTE, self._caps.remote), (media.PREVIEW, self._caps.previews)):
            if cap is not None:
                excess = await self._db.read(media.total, kind) - cap
                await self._removal.delete_all(_unused(kind, self._now() + 1), excess.__le__)
        if self._caps.thumbnails is not None:
            await self._drop_thumbnails(self._caps.thumbnails)

    async def _drop_thumbnails(self, cap: int) -> None:
        excess = await self._db.read(media_thumbnails.total) - cap
        while excess > 0:
            found = await self._db.read(media_thumbnails.least_used, self._now() + 1, _BATCH)
            if not found:
                return
            forms = []
            for form, size in found:
                if excess <= 0:
                    break
                forms.append(form)
                excess -= size
            await self._removal.delete_thumbnails(forms)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _unused(kind: str, before: int) -> Callable[[Transaction], list[MediaRow]]:
    def find(txn: Transaction) -> list[MediaRow]:
        return media.least_used(txn, kind, before, _BATCH)

    return find


def _older(kind: str, before: int) -> Callable[[Transaction], list[MediaRow]]:
    def find(txn: Transaction) -> list[MediaRow]:
        return media.created_before(txn, kind, before, _BATCH)

    return find
