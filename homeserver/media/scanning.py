"""A look at each file before anybody gets it: by a program, or by a service."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from twisted.internet.defer import Deferred

from federation.client.shared import SharedLookups
from homeserver.core.errors import MatrixError, unavailable
from homeserver.media.files import MediaFiles
from homeserver.media.removal import SCANNER, MediaRemoval
from homeserver.media.store import StoreError
from homeserver.semaphore import Semaphore
from storage import media_contents
from storage.database import Database

AT_ONCE = 4
"""Files that a process has looked at at a time."""

_CLEAN_STATUS = (200, 204)
_HARMFUL_STATUS = (403, 406)
_log = structlog.get_logger(__name__)


class ScanRules(NamedTuple):
    """See `config.model.media.MediaScan`."""

    command: tuple[str, ...]
    url: str | None
    timeout_s: float
    deliver_if_failed: bool


class ScanFailed(Exception):
    """The scanner gave no verdict."""


class MediaScanner:
    """Has files looked at, once for each content."""

    def __init__(
        self,
        db: Database,
        files: MediaFiles,
        removal: MediaRemoval,
        reactor: Any,
        rules: ScanRules,
    ) -> None:
        self._db = db
        self._files = files
        self._removal = removal
        self._reactor = reactor
        self._rules = rules
        self._running: SharedLookups[bool] = SharedLookups()
        self._turns = Semaphore(AT_ONCE)

    async def check(self, sha256: str, store_name: str) -> bool:
        """Whether the file was looked at, and is clean; False if it is given unseen.

        Raises MatrixError: 404 for a harmful file, 503 if the scanner does not work.
        """
        try:
            is_clean = await self._running.get(sha256, lambda: self._scanned(sha256, store_name))
        except (ScanFailed, StoreError) as error:
            _log.warning("A file could not be scanned", sha256=sha256, reason=str(error))
            if self._rules.deliver_if_failed and isinstance(error, ScanFailed):
                return False
            raise unavailable() from error
        if not is_clean:
            raise MatrixError(404, "M_NOT_FOUND", "This file was found to be harmful.")
        return True

    async def _scanned(self, sha256: str, store_name: str) -> bool:
        await self._turns.acquire()
        try:
            async with self._files.store.local(store_name) as path:
                is_clean = await self._verdict(path)
        finally:
            self._turns.release()
        if is_clean:
            await self._db.write(media_contents.set_clean, sha256)
        else:
            _log.warning("A harmful file was found", sha256=sha256)
            await self._removal.block(sha256, SCANNER)
        return is_clean

    async def _verdict(self, path: Path) -> bool:
        if self._rules.url is not None:
            return await self._asked(self._rules.url, path)
        return await self._files.threads.run(_run, self._rules, path)

    async def _asked(self, url: str, path: Path) -> bool:
        import treq  # it takes some megabytes
        from twisted.web.http_headers import Headers

        try:
            # Sent as it is read; the client closes the file.
            file = await self._files.threads.run(open, path, "rb")
            asking: Deferred[Any] = treq.post(
                url,
                data=file,
                headers=Headers({"Content-Type": ["application/octet-stream"]}),
                timeout=self._rules.timeout_s,
                allow_redirects=False,
                persistent=False,
                reactor=self._reactor,
            )
            response = await asking
            await treq.collect(response, lambda data: None)
        except Exception as error:  # of whatever kind: there is no verdict
            raise ScanFailed(str(error) or type(error).__name__) from error
        if response.code in _HARMFUL_STATUS:
            return False
        if response.code not in _CLEAN_STATUS:
            raise ScanFailed(f"the service answered {response.code}")
        return True


def _run(rules: ScanRules, path: Path) -> bool:
    try:
        done = subprocess.run(
            [*rules.command, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=rules.timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScanFailed(str(error)) from error
    if done.returncode not in (0, 1):
        raise ScanFailed(f"the program ended with status {done.returncode}")
    return done.returncode == 0
