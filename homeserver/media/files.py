"""Keeping files: the store and the database, in step.

A file is written, synced and put into the store before its row is committed, and its row is gone
before the file is removed. So there is never a row without its file; a file without a row is what
a process left that died between the two, and `homeserver.media.sweeping` removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from homeserver.media.spool import Incoming, Spool
from homeserver.media.store import Store, StoreError, new_name
from homeserver.media.threads import FileThreads
from storage import media_contents
from storage.database import Database
from storage.errors import CommitUnknown
from storage.transaction import Transaction

_log = structlog.get_logger(__name__)


class Kept(NamedTuple):
    """A content that is in the store."""

    sha256: str
    name: str
    size: int


class MediaFiles:
    """The files of a server: its store, what is on the way into it, and threads for both."""

    def __init__(self, db: Database, store: Store, spool: Spool, threads: FileThreads) -> None:
        self.store = store
        self.spool = spool
        self.threads = threads
        self._db = db

    async def keep(
        self, incoming: Incoming, now: int, record: Callable[[Transaction], bool]
    ) -> Kept:
        """Put a finished file into the store, and record it.

        `record` writes the row that names the content, in the same transaction; if it says False,
        or raises, the content is not kept. Raises `StoreError`, and what `record` raises. Not to
        be cancelled: whoever may be, lets others do it.
        """
        sha256, size = incoming.sha256, incoming.size
        known = await self._db.read(media_contents.get, sha256)
        if known is not None:
            # Not stored twice, unless it goes away at this moment.
            found = await self._discarding(incoming, self._record_known, sha256, record)
            if found is not None:
                incoming.discard()
                return Kept(sha256, known.name, size)
        name = new_name(sha256, self._db.process_token)
        try:
            await self.store.put(incoming.path, name, size)
        except BaseException:
            incoming.discard()
            await self.remove([name])
            raise
        try:
            used = await self._db.write(self._record_new, sha256, name, size, now, record)
        except CommitUnknown:
            raise  # the row may be there: the file must be
        except BaseException:
            await self.remove([name])
            raise
        if used != name:
            await self.remove([name])
        return Kept(sha256, used or name, size)

    async def _discarding(
        self,
        incoming: Incoming,
        fn: Callable[[Transaction, str, Callable[[Transaction], bool]], bool | None],
        sha256: str,
        record: Callable[[Transaction], bool],
    ) -> bool | None:
        try:
            return await self._db.write(fn, sha256, record)
        except BaseException:
            incoming.discard()
            raise

    @staticmethod
    def _record_known(
        txn: Transaction, sha256: str, record: Callable[[Transaction], bool]
    ) -> bool | None:
        """Whether it was recorded; None if the content is not there any more."""
        if not media_contents.add_reference(txn, sha256):
            return None
        recorded = record(txn)
        if not recorded:
            media_contents.release(txn, sha256)
        return recorded

    @staticmethod
    def _record_new(
        txn: Transaction,
        sha256: str,
        name: str,
        size: int,
        now: int,
        record: Callable[[Transaction], bool],
    ) -> str | None:
        """The name under which the content is kept; None if it is not."""
        used = media_contents.add(txn, sha256, name, size, now)
        if not record(txn):
            return None if media_contents.release(txn, sha256) is not None else used
        return used

    async def remove(self, names: Iterable[str]) -> None:
        """Remove files that have no row any more. What cannot be removed now is swept later."""
        for name in names:
            try:
                await self.store.delete(name)
            except StoreError as error:
                _log.warning("A file could not be removed yet", name=name, reason=str(error))
