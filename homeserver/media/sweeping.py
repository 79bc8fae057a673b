"""Files and rows in step again, after a process died between the one and the other.

A file without a row is rubbish once the process that put it is gone, or had an hour to write the
row. The name of a file tells the process, and no name is ever used twice: so what is removed here
cannot be what somebody is about to name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from homeserver.media.files import MediaFiles
from homeserver.media.spool import Leftover
from homeserver.media.store import StoredFile, putter
from storage import media, media_contents, processes
from storage.database import Database
from storage.machine import Machine
from storage.media import MediaRow
from storage.media_contents import Content
from storage.transaction import Transaction

GRACE_MS = 3_600_000
"""How long a process that runs may take from a file to its row."""
FORGOTTEN_MS = 86_400_000
"""Nothing is on the way for so long without being written to."""
_BATCH = 200


@dataclass
class Findings:
    """What was wrong, and is right now unless it was only looked for."""

    files: int = 0
    """Files with their rows."""
    size: int = 0
    orphans: list[str] = field(default_factory=list)
    """Files without rows, by their names."""
    unfinished: list[str] = field(default_factory=list)
    """Files that were on the way into the store when their process ended."""
    lost: list[MediaRow] = field(default_factory=list)
    """Rows whose files are gone or damaged."""
    lost_thumbnails: int = 0
    miscounted: int = 0
    """Contents with a wrong number of references."""

    @property
    def is_clean(self) -> bool:
        return not (
            self.orphans or self.unfinished or self.lost or self.lost_thumbnails or self.miscounted
        )


class Sweeping:
    """Compares the store and the database."""

    def __init__(self, db: Database, files: MediaFiles, clock: IReactorTime) -> None:
        self._db = db
        self._files = files
        self._clock = clock

    async def sweep(self) -> Findings:
        """Remove files without rows. Raises StoreError."""
        findings = Findings()
        await self._leftovers(findings, certain=False, repair=True)
        await self._orphans(findings, certain=False, repair=True)
        return findings

    async def check(self, *, repair: bool, contents: bool = False) -> Findings:
        """Look at everything; with `contents` also at whether files are what they were.

        Files of processes that are gone are rubbish at once here. Raises StoreError.
        """
        findings = Findings()
        await self._leftovers(findings, certain=True, repair=repair)
        await self._orphans(findings, certain=True, repair=repair)
        last = ""
        while found := await self._db.read(media_contents.after, last, _BATCH):
            last = found[-1].sha256
            for content in found:
                await self._check(findings, content, repair, contents)
        return findings

    async def _check(
        self, findings: Findings, content: Content, repair: bool, contents: bool
    ) -> None:
        if not await self._is_whole(content, contents):
            # It may have been removed since the row was read.
            if await self._db.read(media_contents.get, content.sha256) != content:
                return
            rows, thumbnails = await self._db.read(_named_by, content.sha256)
            findings.lost += rows
            findings.lost_thumbnails += thumbnails
            if repair:
                await self._db.write(media.forget_content, content.sha256)
                await self._files.remove([content.name])
            return
        counted = await self._db.read(media_contents.count_references, content.sha256)
        if counted != content.refs:
            current, counted = await self._db.read(_counts, content.sha256)
            if current is not None and counted != current:
                findings.miscounted += 1
                if repair:
                    name = await self._db.write(media_contents.recount, content.sha256)
                    await self._files.remove([name] if name is not None else [])
                    return
        findings.files += 1
        findings.size += content.size

    async def _is_whole(self, content: Content, contents: bool) -> bool:
        if not await self._files.store.exists(content.name, content.size):
            return False
        if not contents:
            return True
        async with self._files.store.local(content.name) as path:
            incoming = await self._files.spool.adopt(path)
        return incoming.sha256 == content.sha256

    async def _leftovers(self, findings: Findings, *, certain: bool, repair: bool) -> None:
        found = await self._files.threads.run(self._files.spool.leftovers)
        running = await self._db.read(_running, certain)
        for leftover in found:
            if self._is_rubbish(leftover, running, certain):
                findings.unfinished.append(leftover.path.name)
                if repair:
                    self._files.spool.remove(leftover.path)

    def _is_rubbish(self, leftover: Leftover, running: Collection[str], certain: bool) -> bool:
        if leftover.process in running:
            return leftover.written_ts < self._now() - FORGOTTEN_MS
        return certain or leftover.written_ts < self._now() - GRACE_MS

    async def _orphans(self, findings: Findings, *, certain: bool, repair: bool) -> None:
        async for part in self._files.store.files():
            for start in range(0, len(part), _BATCH):
                batch = part[start : start + _BATCH]
                orphans = await self._without_rows(batch, certain)
                findings.orphans += orphans
                if repair:
                    await self._files.remove(orphans)

    async def _without_rows(self, files: Collection[StoredFile], certain: bool) -> list[str]:
        old = self._now() - GRACE_MS
        # Looked at after the files were: who put them has been in the table since before.
        known, running = await self._db.read(_known, [file.name for file in files], certain)
        return [
            file.name
            for file in files
            if file.name not in known
            and (file.written_ts < old or (certain and putter(file.name) not in running))
        ]

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _running(txn: Transaction, certain: bool) -> set[str]:
    """The processes of the server that may be at work."""
    machine = Machine()
    return {
        process.process_id
        for process in processes.running(txn)
        if not (certain and processes.is_gone(process, machine))
    }


def _known(txn: Transaction, names: Collection[str], certain: bool) -> tuple[set[str], set[str]]:
    return media_contents.known_names(txn, names), _running(txn, certain)


def _named_by(txn: Transaction, sha256: str) -> tuple[list[MediaRow], int]:
    rows = media.of_hash(txn, sha256)
    return rows, media_contents.count_references(txn, sha256) - len(rows)


def _counts(txn: Transaction, sha256: str) -> tuple[int | None, int]:
    content = media_contents.get(txn, sha256)
    counted = media_contents.count_references(txn, sha256)
    return None if content is None else content.refs, counted
