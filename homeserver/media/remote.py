"""Files of other servers: fetched once, kept for a while.

Server-server API, "Content Repository". Of those who ask for the same file at the same time, in
whatever process, one fetches it. What another server did not give it is not asked for again at
once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from federation.client.errors import BadAnswer, RemoteError, RemoteTimeout
from federation.client.shared import SharedLookups
from homeserver.core import media as names
from homeserver.core.errors import MatrixError, unavailable
from homeserver.media.files import MediaFiles
from homeserver.media.remote_files import RemoteFiles, Transfer
from homeserver.media.remote_verdicts import Verdict, verdict_on
from homeserver.media.spool import Incoming
from homeserver.media.store import StoreError
from homeserver.media.thumbnails import Size, Thumbnails, form_for
from homeserver.semaphore import Semaphore
from storage import media, media_failures, media_thumbnails
from storage.database import Database, sleep
from storage.feed import Feed
from storage.leases import LeaseKeeper
from storage.media import Found, MediaRow
from storage.media_failures import MediaFailure
from storage.media_thumbnails import Thumbnail
from storage.pool import Reactor
from storage.transaction import Transaction

T = TypeVar("T")

TOTAL_S = 600.0
"""Seconds that a file may take from the first question to its last byte."""
AT_ONCE = 24
"""Files that a process fetches at a time; more wait."""
AT_ONCE_OF_ONE = 8
"""Of these, files of one server: one that is slow does not hold up the others."""
MAX_THUMBNAIL = 10 << 20
_POLL_S = 1.0
_log = structlog.get_logger(__name__)


class RemoteRules(NamedTuple):
    """`max_bytes` of one file; `authenticated`: not given to those without an access token."""

    max_bytes: int
    authenticated: bool


class RemoteMedia:
    """Fetches files. All methods raise MatrixError."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        reactor: Reactor,
        files: MediaFiles,
        calls: RemoteFiles,
        thumbnails: Thumbnails,
        rules: RemoteRules,
    ) -> None:
        self._db = db
        self._feed = feed
        self._reactor = reactor
        self._files = files
        self._calls = calls
        self._thumbnails = thumbnails
        self._rules = rules
        self._running: SharedLookups[Found] = SharedLookups()
        self._thumbnails_running: SharedLookups[Thumbnail] = SharedLookups()
        self._turns = Semaphore(AT_ONCE)
        self._turns_of: WeakValueDictionary[str, Semaphore] = WeakValueDictionary()
        clock: Any = reactor
        self._leases = LeaseKeeper(db, clock, db.process_token, lambda name: None)

    async def stop(self) -> None:
        """Give up what others may fetch now."""
        await self._leases.stop()

    async def fetch(self, server_name: str, media_id: str, wait_ms: int) -> Found:
        """A file that is not here yet.

        404 if the server does not have it, 504 if it has not got it yet, 502 if it cannot be had
        or is too large.
        """
        key = media.cache_key(server_name, media_id)
        return await self._running.get(key, lambda: self._fetched(server_name, media_id, wait_ms))

    async def fetch_thumbnail(
        self, server_name: str, media_id: str, size: Size, wait_ms: int
    ) -> Thumbnail:
        """A thumbnail that the other server made, of a file that is too large to be fetched."""
        form = form_for(media.cache_key(server_name, media_id), size)
        known = await self._db.query(media_thumbnails.find, form)
        if known is not None:
            return known

        async def fetched() -> Thumbnail:
            query: dict[str, str | int] = {
                "width": form.width,
                "height": form.height,
                "method": form.method,
                "animated": "true" if form.animated else "false",
            }
            incoming = await self._guarded(
                server_name,
                lambda: self._calls.thumbnail(
                    server_name, media_id, query, wait_ms, self._taken_small
                ),
            )
            return await self._thumbnails.adopt(incoming, form)

        return await self._thumbnails_running.get(repr(form), fetched)

    async def _guarded(self, server_name: str, act: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._in_turn(server_name, act)
        except RemoteError as error:
            verdict = verdict_on(error)
            raise _refusal(verdict.status, verdict.errcode) from error

    async def _in_turn(self, server_name: str, act: Callable[[], Awaitable[T]]) -> T:
        """Do something with another server, in time."""
        # Kept by those who have or await a turn, and gone with the last of them.
        turns = self._turns_of.setdefault(server_name.lower(), Semaphore(AT_ONCE_OF_ONE))
        await turns.acquire()
        try:
            await self._turns.acquire()
            try:
                doing = Deferred.fromCoroutine(_awaited(act))
                doing.addTimeout(TOTAL_S, self._reactor)  # type: ignore[arg-type]
                return await doing
            except DeferredTimeout:
                raise RemoteTimeout("?", "the file did not come in time") from None
            finally:
                self._turns.release()
        finally:
            turns.release()

    async def _fetched(self, server_name: str, media_id: str, wait_ms: int) -> Found:
        name = f"media:{media.cache_key(server_name, media_id)}"
        until = self._reactor.seconds() + TOTAL_S
        while self._reactor.seconds() < until:
            found = await self._known(server_name, media_id)
            if found is not None:
                return found
            if await self._leases.claim([name]):
                try:
                    # Whoever had the lease may have been done before it was claimed.
                    found = await self._known(server_name, media_id)
                    if found is None:
                        found = await self._transferred(server_name, media_id, wait_ms)
                    return found
                finally:
                    await self._leases.release([name])
                    self._feed.publish(name)
            await self._hint(name)
        raise _refusal(502, "M_UNKNOWN")

    async def _known(self, server_name: str, media_id: str) -> Found | None:
        """The file, if it came meanwhile. Raises MatrixError for one that was not given lately."""
        found, failure = await self._db.read(_look, server_name, media_id)
        if found is None and failure is not None and failure.until_ts > self._now():
            raise _refusal(failure.status, failure.errcode)
        return found

    async def _hint(self, name: str) -> None:
        """Wait for another process, for a moment."""
        hinted: Deferred[None] = Deferred()
        unsubscribe = self._feed.subscribe(
            name, lambda pos: None if hinted.called else hinted.callback(None)
        )
        timer = sleep(self._reactor, _POLL_S)
        timer.addCallback(lambda _: None if hinted.called else hinted.callback(None))
        timer.addErrback(lambda _: None)
        try:
            await hinted
        finally:
            unsubscribe()
            timer.cancel()

    async def _transferred(self, server_name: str, media_id: str, wait_ms: int) -> Found:
        try:
            transfer = await self._in_turn(
                server_name,
                lambda: self._calls.download(server_name, media_id, wait_ms, self._taken),
            )
        except RemoteError as error:
            verdict = verdict_on(error)
            _log.info("A file was not to be had", server=server_name, reason=str(error))
            await self._db.write(self._record_failure, server_name, media_id, verdict)
            raise _refusal(verdict.status, verdict.errcode) from error
        return await self._recorded(server_name, media_id, transfer)

    async def _recorded(self, server_name: str, media_id: str, transfer: Transfer) -> Found:
        now = self._now()
        described, incoming = transfer
        row = MediaRow(
            server_name=server_name,
            media_id=media_id,
            kind=media.REMOTE,
            sha256=incoming.sha256,
            size=incoming.size,
            content_type=names.content_type(described.content_type),
            filename=names.disposition_name(described.disposition),
            uploader=None,
            created_ts=now,
            last_access_ts=now,
            expires_ts=None,
            authenticated=self._rules.authenticated,
            quarantined_by=None,
            protected=False,
        )

        def record(txn: Transaction) -> bool:
            media_failures.remove(txn, server_name, media_id)
            return media.add(txn, row)

        try:
            await self._files.keep(incoming, now, record)
        except StoreError as error:
            _log.error("A file could not be kept", reason=str(error))
            raise unavailable() from error
        found = await self._db.query(media.find, server_name, media_id)
        if found is None:
            raise unavailable()
        return found

    async def _taken(self, chunks: AsyncIterator[bytes]) -> Incoming:
        return await self._into_spool(chunks, self._rules.max_bytes)

    async def _taken_small(self, chunks: AsyncIterator[bytes]) -> Incoming:
        return await self._into_spool(chunks, MAX_THUMBNAIL)

    async def _into_spool(self, chunks: AsyncIterator[bytes], max_bytes: int) -> Incoming:
        try:
            return await self._files.spool.take(chunks, max_bytes)
        except MatrixError:
            raise BadAnswer("?", "its answer is too large") from None
        except OSError as error:
            _log.error("A file could not be kept", reason=str(error))
            raise unavailable() from error

    def _record_failure(
        self, txn: Transaction, server_name: str, media_id: str, verdict: Verdict
    ) -> None:
        before = media_failures.get(txn, server_name, media_id)
        attempts = 1 + (before.attempts if before is not None else 0)
        seconds = min(verdict.longest_s, verdict.first_s * 2 ** min(attempts - 1, 20))
        if seconds:
            until = self._now() + int(seconds * 1000)
            failure = MediaFailure(verdict.status, verdict.errcode, attempts, until)
            media_failures.put(txn, server_name, media_id, failure)

    def _now(self) -> int:
        return int(self._reactor.seconds() * 1000)


async def _awaited(act: Callable[[], Awaitable[T]]) -> T:
    return await act()


def _look(
    txn: Transaction, server_name: str, media_id: str
) -> tuple[Found | None, MediaFailure | None]:
    return (
        media.find(txn, server_name, media_id),
        media_failures.get(txn, server_name, media_id),
    )


_TOLD = {
    "M_NOT_FOUND": "The other server does not have this file.",
    "M_NOT_YET_UPLOADED": "The file has not been uploaded yet.",
    "M_TOO_LARGE": "The file is larger than what is fetched from other servers.",
}


def _refusal(status: int, errcode: str) -> MatrixError:
    return MatrixError(status, errcode, _TOLD.get(errcode, "The other server gave no file."))
