"""Files on their way into the store.

What comes in is written to the spool directory, under a name that tells whose process it is. Such
a file of a process that lives is in the making; one of a process that does not is rubbish.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from homeserver.core.errors import too_large
from homeserver.media.threads import FileThreads

GATHER = 512 * 1024
"""Bytes that are gathered before a thread writes them."""

_NAME = re.compile(r"([0-9a-f]{12})-[0-9a-f]{16}")


class Leftover(NamedTuple):
    """A file in the spool directory; `written_ts` in milliseconds."""

    path: Path
    process: str
    written_ts: int


class Spool:
    """The spool directory of a server; all its processes on a machine may share it."""

    def __init__(self, directory: Path, process: str, threads: FileThreads) -> None:
        self._directory = directory
        self._process = process
        self._threads = threads

    def prepare(self) -> None:
        """Make the directory. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new_path(self) -> Path:
        """A path for a new file, which some program may write."""
        return self._directory / f"{self._process}-{secrets.token_hex(8)}"

    def begin(self, max_bytes: int) -> Incoming:
        """A new file of at most so many bytes."""
        return Incoming(self.new_path(), max_bytes, self._threads)

    async def take(self, chunks: AsyncIterator[bytes], max_bytes: int) -> Incoming:
        """Write all that comes. Raises MatrixError (413), OSError, and what `chunks` raises;
        nothing is left over then."""
        incoming = self.begin(max_bytes)
        try:
            async for data in chunks:
                await incoming.write(data)
            await incoming.finish()
        except BaseException:
            incoming.discard()
            raise
        return incoming

    async def adopt(self, path: Path) -> Incoming:
        """A finished file that some program wrote, with its size and hash. Raises OSError."""
        incoming = Incoming(path, 0, self._threads)
        await self._threads.run(incoming.measure)
        return incoming

    def remove(self, path: Path) -> None:
        """Remove a file that some program may have written."""
        Incoming(path, 0, self._threads).discard()

    def leftovers(self) -> list[Leftover]:
        """All files in the directory, in whatever state. To be called in a thread."""
        found = []
        for entry in os.scandir(self._directory):
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            try:
                written = int(entry.stat().st_mtime * 1000)
            except FileNotFoundError:
                continue
            found.append(Leftover(Path(entry.path), match[1], written))
        return found


class Incoming:
    """A file in the making. Ends by being put into the store, or by `discard`."""

    def __init__(self, path: Path, max_bytes: int, threads: FileThreads) -> None:
        self.path = path
        self.size = 0
        """Bytes so far."""
        self._max_bytes = max_bytes
        self._threads = threads
        self._hash = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._waiting = 0
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._discarded = False

    @property
    def sha256(self) -> str:
        """The hash of the content, once `finish` was called."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Add to the file. Raises MatrixError (413), OSError."""
        self.size += len(data)
        if self.size > self._max_bytes:
            raise too_large(f"The file is larger than {self._max_bytes} bytes.")
        self._gathered.append(data)
        self._waiting += len(data)
        if self._waiting >= GATHER:
            await self._flush(last=False)

    async def finish(self) -> None:
        """Write what is left, and have the file survive a crash of the machine."""
        await self._flush(last=True)

    def measure(self) -> None:
        """Take size and hash from the file, and sync it. To be called in a thread."""
        with open(self.path, "rb") as file:
            while data := file.read(GATHER):
                self._hash.update(data)
                self.size += len(data)
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Remove the file if it is still there, once no thread writes to it."""
        self._discarded = True
        self._gathered.clear()
        self._threads.begin(self._remove).addErrback(lambda _: None)

    async def _flush(self, *, last: bool) -> None:
        gathered, self._gathered, self._waiting = self._gathered, [], 0
        await self._threads.run(self._write, gathered, last)

    def _write(self, gathered: list[bytes], last: bool) -> None:
        with self._lock:
            if self._discarded:
                return
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o600)
            for data in gathered:
                self._hash.update(data)
            _write_all(self._descriptor, gathered)
            if last:
                os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = None

    def _remove(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            self.path.unlink(missing_ok=True)


def _write_all(descriptor: int, parts: list[bytes]) -> None:
    left = [memoryview(part) for part in parts if part]
    while left:
        written = os.writev(descriptor, left[:512])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left and written:
            left[0] = left[0][written:]
