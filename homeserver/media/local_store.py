"""Files in a directory, spread over directories by their hash."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from homeserver.media.store import FileMissing, StoredFile, StoreError, putter
from homeserver.media.threads import FileThreads

CHUNK = 128 * 1024
"""Bytes that are read at a time."""

_NO_WAIT = getattr(os, "RWF_NOWAIT", None)


class LocalStore:
    """A `Store` in a directory. Several processes, and machines that share it, may use it."""

    def __init__(self, directory: Path, threads: FileThreads) -> None:
        self._directory = directory
        self._threads = threads

    async def put(self, path: Path, name: str, size: int) -> None:
        await self._threads.run(_guarded, _move, path, self._path(name), self._directory)

    async def read(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        file = _File(self._path(name))
        try:
            data = await self._threads.run(file.open, start, min(end - start, CHUNK))
            while True:
                if not data and start < end:
                    raise StoreError(f"The file {name} is shorter than it was.")
                yield data
                start += len(data)
                if start >= end:
                    return
                length = min(end - start, CHUNK)
                data = file.read_cached(start, length)
                if not data:
                    data = await self._threads.run(file.read, start, length)
        finally:
            file.close()

    async def exists(self, name: str, size: int) -> bool:
        return await self._threads.run(_size, self._path(name)) == size

    @asynccontextmanager
    async def local(self, name: str) -> AsyncIterator[Path]:
        path = self._path(name)
        if await self._threads.run(_size, path) is None:
            raise FileMissing(name)
        yield path

    async def delete(self, name: str) -> None:
        await self._threads.run(_guarded, _unlink, self._path(name))

    async def files(self) -> AsyncIterator[list[StoredFile]]:
        for first in await self._threads.run(_guarded, _names, self._directory):
            for second in await self._threads.run(_guarded, _names, self._directory / first):
                directory = self._directory / first / second
                found = await self._threads.run(_guarded, _list, directory)
                if found:
                    yield found

    async def address(
        self, name: str, content_type: str, disposition: str, seconds: int
    ) -> str | None:
        return None

    def _path(self, name: str) -> Path:
        if putter(name) is None:
            raise FileMissing(name)
        return self._directory / name[:2] / name[2:4] / name


def _guarded(fn: Any, *args: Any) -> Any:
    """What goes wrong with files, as `StoreError`."""
    try:
        return fn(*args)
    except FileNotFoundError as error:
        raise FileMissing(str(error.filename)) from None
    except OSError as error:
        raise StoreError(f"{error.filename or 'a file'}: {error.strerror}") from error


def _move(source: Path, target: Path, root: Path) -> None:
    made = [each for each in (target.parent.parent, target.parent) if not each.exists()]
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.rename(source, target)
    # The file itself was synced where it was written. A new directory is an entry of its parent.
    for directory in {target.parent, *(each.parent for each in made)}:
        sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Have the entries of a directory survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _File:
    """An open file that may be closed while a thread still reads from it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._closed = False

    def open(self, start: int, length: int) -> bytes:
        """Open the file and read its first bytes, in one visit of a thread."""
        with self._lock:
            if self._closed:
                return b""
            self._descriptor = _guarded(os.open, self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self.read(start, length)

    def read(self, start: int, length: int) -> bytes:
        """Some bytes, in a thread."""
        with self._lock:
            try:
                data: bytes = b""
                if self._descriptor is not None:
                    data = _guarded(os.pread, self._descriptor, length, start)
                return data
            finally:
                self._end()

    def read_cached(self, start: int, length: int) -> bytes:
        """What the system has in memory anyway, for which no thread is needed; maybe nothing."""
        if _NO_WAIT is None or self._descriptor is None:
            return b""
        buffer = bytearray(length)
        try:
            got = os.preadv(self._descriptor, [buffer], start, _NO_WAIT)
        except OSError:  # not in memory, or not with this kind of file system
            return b""
        return bytes(buffer) if got == length else bytes(buffer[:got])

    def close(self) -> None:
        """Close the file, when the thread that reads from it is done."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()

    def _end(self) -> None:
        if self._closed and self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _names(directory: Path) -> list[str]:
    """The directories of two letters in a directory."""
    if not directory.exists():
        return []
    return sorted(entry.name for entry in os.scandir(directory) if len(entry.name) == 2)


def _list(directory: Path) -> list[StoredFile]:
    found = []
    for entry in os.scandir(directory):
        if putter(entry.name) is None:
            continue
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue
        found.append(StoredFile(entry.name, status.st_size, int(status.st_mtime * 1000)))
    return found
