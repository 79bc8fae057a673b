"""Taking files from users: at once, or for a name that was reserved before.

Client-server API, "Content repository": `POST upload`, `POST create`, `PUT upload`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from twisted.internet.interfaces import IReactorTime

from homeserver.core import media as names
from homeserver.core.errors import (
    MatrixError,
    forbidden,
    limit_exceeded,
    not_found,
    too_large,
    unavailable,
)
from homeserver.media.files import MediaFiles
from homeserver.media.spool import Incoming
from homeserver.media.store import StoreError
from storage import media, media_contents, users
from storage.database import Database
from storage.media import MediaRow
from storage.transaction import Transaction

PATIENCE_S = 120.0
SLOWEST = 256
"""Bytes a second that a file must bring on average, after so much patience."""

TOTAL_FOR_S = 30.0
"""For so long it is known how much all files take: counting them takes time."""

_ID_BYTES = 18
_Record = Callable[[Transaction], bool]
_log = structlog.get_logger(__name__)


def channel(media_id: str) -> str:
    """Where it is told that a reserved name got its file."""
    return f"media:{media_id}"


@dataclass(frozen=True, slots=True)
class UploadRules:
    """What users may send. Sizes in bytes, times in milliseconds; None: no limit."""

    server_name: str
    max_bytes: int
    within_ms: int
    reserved_per_user: int
    authenticated: bool
    per_user_bytes: int | None
    total_bytes: int | None


class Described(NamedTuple):
    """What a client says of its file."""

    content_type: str | None
    filename: str | None
    length: int | None


class Reserved(NamedTuple):
    """A name without a file yet, and until when it can get one."""

    uri: str
    expires_ts: int


class Uploads:
    """Takes files. All methods raise MatrixError."""

    def __init__(
        self, db: Database, files: MediaFiles, clock: IReactorTime, rules: UploadRules
    ) -> None:
        self.rules = rules
        self._db = db
        self._files = files
        self._clock = clock
        self._taken = 0
        self._total_until = 0.0

    async def upload(self, user_id: str, described: Described, body: AsyncIterator[bytes]) -> str:
        """Take a file; its mxc URI. 413 if it is too large, 403 beyond a quota."""
        await self._db.read(self._check_space, user_id, described.length or 0)
        incoming = await self._receive(described, body)
        row = self._row(user_id, described, incoming, _new_id())
        await self._keep(incoming, row, lambda txn: media.add(txn, row))
        return row.uri

    async def reserve(self, user_id: str) -> Reserved:
        """A name for a file that is to come. 429 if the user has too many."""
        now = self._now()
        row = MediaRow(
            server_name=self.rules.server_name,
            media_id=_new_id(),
            kind=media.LOCAL,
            sha256=None,
            size=0,
            content_type=names.OCTETS,
            filename=None,
            uploader=user_id,
            created_ts=now,
            last_access_ts=now,
            expires_ts=now + self.rules.within_ms,
            authenticated=self.rules.authenticated,
            quarantined_by=None,
            protected=False,
        )
        await self._db.write(self._reserve, row, now)
        return Reserved(row.uri, now + self.rules.within_ms)

    async def fill(
        self,
        user_id: str,
        server_name: str,
        media_id: str,
        described: Described,
        body: AsyncIterator[bytes],
    ) -> None:
        """Take the file of a reserved name.

        404 for a name that is not reserved (any more), 403 for another user's, 409 if it has its
        file, 413, and 403 beyond a quota.
        """
        await self._db.read(self._check_reserved, user_id, server_name, media_id, described)
        incoming = await self._receive(described, body)
        row = self._row(user_id, described, incoming, media_id)

        def record(txn: Transaction) -> bool:
            self._check_reserved(txn, user_id, server_name, media_id, described)
            txn.notify(channel(media_id))
            return media.fill(txn, row)

        await self._keep(incoming, row, record)

    async def _receive(self, described: Described, body: AsyncIterator[bytes]) -> Incoming:
        limit = self.rules.max_bytes
        if described.length is not None and described.length > limit:
            raise too_large(f"The file is larger than {limit} bytes.")
        try:
            return await self._files.spool.take(self._paced(body), limit)
        except OSError as error:
            raise _store_failed(error) from error

    async def _paced(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body, given up (408) when it only trickles."""
        started, size = self._clock.seconds(), 0
        async for data in body:
            size += len(data)
            seconds = self._clock.seconds() - started
            if seconds > PATIENCE_S and size < seconds * SLOWEST:
                raise MatrixError(408, "M_UNKNOWN", "The file comes too slowly.")
            yield data

    async def _keep(self, incoming: Incoming, row: MediaRow, record: _Record) -> None:
        def checked(txn: Transaction) -> bool:
            self._check_blocked(txn, incoming.sha256)
            self._check_space(txn, row.uploader or "", incoming.size, lock=True)
            if not record(txn):
                raise _cannot_overwrite()
            return True

        try:
            await self._files.keep(incoming, self._now(), checked)
            self._taken += incoming.size
        except StoreError as error:
            raise _store_failed(error) from error

    def _row(
        self, user_id: str, described: Described, incoming: Incoming, media_id: str
    ) -> MediaRow:
        now = self._now()
        return MediaRow(
            server_name=self.rules.server_name,
            media_id=media_id,
            kind=media.LOCAL,
            sha256=incoming.sha256,
            size=incoming.size,
            content_type=names.content_type(described.content_type),
            filename=names.filename(described.filename),
            uploader=user_id,
            created_ts=now,
            last_access_ts=now,
            expires_ts=None,
            authenticated=self.rules.authenticated,
            quarantined_by=None,
            protected=False,
        )

    def _reserve(self, txn: Transaction, row: MediaRow, now: int) -> None:
        assert row.uploader is not None
        users.lock_user(txn, row.uploader)
        count, first = media.count_reserved(txn, row.uploader, now)
        if count >= self.rules.reserved_per_user:
            raise limit_exceeded(max(1000, first - now))
        media.add(txn, row)

    def _check_reserved(
        self,
        txn: Transaction,
        user_id: str,
        server_name: str,
        media_id: str,
        described: Described,
    ) -> None:
        row = None
        if server_name == self.rules.server_name:
            row = media.get(txn, server_name, media_id)
        if row is None or row.uploader is None:
            raise not_found("This name was not reserved.")
        if row.uploader != user_id:
            raise forbidden("Another user has reserved this name.")
        if row.sha256 is not None:
            raise _cannot_overwrite()
        if row.expires_ts is not None and row.expires_ts <= self._now():
            raise not_found("The reservation of this name has expired.")
        self._check_space(txn, user_id, described.length or 0)

    def _check_space(
        self, txn: Transaction, user_id: str, size: int, *, lock: bool = False
    ) -> None:
        """Raises MatrixError (403) if a file of this size is too much."""
        quota = self.rules.per_user_bytes
        if quota is not None:
            if lock:
                users.lock_user(txn, user_id)  # two uploads together must not pass what one may not
            if media.used_by(txn, user_id)[1] + size > quota:
                raise forbidden("Your files take all the room that you have here.")
        total = self.rules.total_bytes
        if total is not None and self._total(txn) + size > total:
            raise forbidden("This server has no room for more files.")

    def _total(self, txn: Transaction) -> int:
        """All that users have sent; what other processes took lately may lack."""
        now = self._clock.seconds()
        if now >= self._total_until:
            self._taken = media.total(txn, media.LOCAL)
            self._total_until = now + TOTAL_FOR_S
        return self._taken

    def _check_blocked(self, txn: Transaction, sha256: str) -> None:
        if media_contents.blocked_by(txn, sha256) is not None:
            raise forbidden("This file is not taken here.")

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _new_id() -> str:
    # 144 random bits: nobody guesses what others have sent.
    return secrets.token_urlsafe(_ID_BYTES)


def _cannot_overwrite() -> MatrixError:
    return MatrixError(409, "M_CANNOT_OVERWRITE_MEDIA", "This name has its file already.")


def _store_failed(error: Exception) -> MatrixError:
    _log.error("A file could not be kept", reason=str(error))
    return unavailable()
