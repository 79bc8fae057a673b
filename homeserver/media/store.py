"""What a store of files is: a directory or a bucket.

A file is put under a name that no other ever has (`new_name`), whole or not at all, and is never
changed. So reading, putting and deleting need no locks, in whatever process they happen. The
database decides which files there are: a file without a row is rubbish.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

_NAME = re.compile(r"[0-9a-f]{64}-([0-9a-f]{12})-[0-9a-f]{12}")


class StoreError(Exception):
    """The store does not work; what it was asked for may be there or not."""


class FileMissing(StoreError):
    """The store has no file of this name."""


class StoredFile(NamedTuple):
    """A file in a store: size in bytes, `written_ts` in milliseconds."""

    name: str
    size: int
    written_ts: int


class Store(Protocol):
    """Keeps files. All methods raise `StoreError`."""

    async def put(self, path: Path, name: str, size: int) -> None:
        """Take a file over: it is kept under `name`, for good, and gone from `path`."""

    def read(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to and without `end`. Raises `FileMissing` before the first."""

    async def exists(self, name: str, size: int) -> bool:
        """Whether there is such a file, of this size."""

    def local(self, name: str) -> AbstractAsyncContextManager[Path]:
        """The file as one of this machine, for programs that want a path."""

    async def delete(self, name: str) -> None:
        """Remove a file if it is there."""

    def files(self) -> AsyncIterator[list[StoredFile]]:
        """All files, in parts. What comes and goes meanwhile may be there or not."""

    async def address(
        self, name: str, content_type: str, disposition: str, seconds: int
    ) -> str | None:
        """Where a client gets the file for so long; None if it is not given away like this."""


def new_name(sha256: str, process: str) -> str:
    """A name for a file with this content, put by this process (`Database.process_token`)."""
    return f"{sha256}-{process}-{secrets.token_hex(6)}"


def putter(name: str) -> str | None:
    """Which process put a file; None for what is no name of a file."""
    match = _NAME.fullmatch(name)
    return None if match is None else match[1]
