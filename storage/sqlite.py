"""SQLite: write-ahead log, one writer, several readers, each with a connection of its own."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from storage.dialect import SQLITE, Dialect, check_text
from storage.direct import Direct
from storage.direct_sqlite import SqliteDirect
from storage.errors import (
    Conflict,
    DatabaseFull,
    DatabaseUnavailable,
    IntegrityViolation,
    InvalidText,
    StorageError,
    UnusableDatabase,
)
from storage.pool import Reactor
from storage.transaction import Row, Transaction

MINIMUM_VERSION = (3, 35, 0)  # RETURNING
_BUSY_TIMEOUT_MS = 10_000
_CACHE_KIB = 2_000  # a connection; four connections must stay small in an idle process


def _translated(error: Exception) -> Exception:
    if isinstance(error, sqlite3.IntegrityError):
        return IntegrityViolation(str(error))
    if isinstance(error, UnicodeEncodeError):
        return InvalidText("Text holds a lone surrogate.")
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Conflict(str(error))
        if code == sqlite3.SQLITE_FULL:
            return DatabaseFull(str(error))
    return error


class SqliteTransaction(Transaction):
    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection, dialect: Dialect = SQLITE) -> None:
        super().__init__(dialect)
        self._connection = connection

    def _run(self, sql: str, args: Sequence[Any]) -> sqlite3.Cursor:
        self.statements += 1
        check_text(args)
        try:
            return self._connection.execute(sql, args)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise _translated(error) from error

    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        cursor = self._run(sql, args)
        if cursor.description is not None:
            # A statement that returns rows must be read to its end before COMMIT.
            return len(cursor.fetchall())
        return max(cursor.rowcount, 0)

    def one(self, sql: str, args: Sequence[Any] = ()) -> Row | None:
        cursor = self._run(sql, args)
        try:
            row: Row | None = cursor.fetchone()
        except sqlite3.Error as error:
            raise _translated(error) from error
        cursor.close()
        return row

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._run(sql, args).fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        listed = rows if isinstance(rows, list) else list(rows)
        if not listed:
            return
        self.statements += 1
        for row in listed:
            check_text(row)
        try:
            self._connection.executemany(sql, listed)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise _translated(error) from error


def _check_writable(path: Path) -> None:
    """Raise UnusableDatabase if SQLite would open the file for reading only, and not say so."""
    if str(path) == ":memory:":
        return
    # The directory too: beside the file SQLite makes its log.
    for place in (path.parent, path):
        if os.access(place, os.F_OK) and not _may_write(place):
            raise UnusableDatabase(f"{place} is not writable for this user.")


def _may_write(place: Path) -> bool:
    return os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


class SqliteSession:
    """One connection. Not to be used by two threads at a time."""

    def __init__(self, path: Path, *, writable: bool, dialect: Dialect = SQLITE) -> None:
        self._begin = "BEGIN IMMEDIATE" if writable else "BEGIN DEFERRED"
        self._dialect = dialect
        self.broken = False
        if writable:
            _check_writable(path)
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            self._prepare(writable)
        except sqlite3.DatabaseError as error:
            raise self._unopened(path, error) from error

    @staticmethod
    def _unopened(path: Path, error: sqlite3.DatabaseError) -> StorageError:
        if getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return UnusableDatabase(f"{path} is not an SQLite database: {error}.")
        return DatabaseUnavailable(f"The database {path} cannot be opened: {error}.")

    def _prepare(self, writable: bool) -> None:
        run = self._connection.execute
        run(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        run("PRAGMA foreign_keys = ON")
        run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        run("PRAGMA mmap_size = 0")
        run("PRAGMA temp_store = MEMORY")
        if writable:
            run("PRAGMA journal_mode = WAL")
            # Every acknowledged write survives power loss, not only a crash of the process.
            run("PRAGMA synchronous = FULL")
            run("PRAGMA journal_size_limit = 67108864")
        else:
            run("PRAGMA query_only = ON")

    def begin(self) -> Transaction:
        try:
            self._connection.execute(self._begin)
        except sqlite3.Error as error:
            raise _translated(error) from error
        return SqliteTransaction(self._connection, self._dialect)

    def begin_single(self) -> Transaction:
        """Nothing is saved here by leaving BEGIN and COMMIT out."""
        return self.begin()

    def commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _translated(error) from error

    def rollback(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.broken = True

    def lock_schema(self, txn: Transaction) -> None:
        """Keep other processes from migrating: BEGIN IMMEDIATE did it already."""

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


class SqliteBackend:
    """Opens sessions on one file. Raises UnusableDatabase when SQLite is too old."""

    dialect = SQLITE
    readers = 3
    writers = 1

    def __init__(self, path: Path) -> None:
        if sqlite3.sqlite_version_info < MINIMUM_VERSION:
            wanted = ".".join(map(str, MINIMUM_VERSION))
            raise UnusableDatabase(
                f"SQLite {sqlite3.sqlite_version} is too old: {wanted} or newer is needed."
            )
        self.path = path

    def connect(self, *, writable: bool) -> SqliteSession:
        """Open a session. Raises DatabaseUnavailable, UnusableDatabase."""
        return SqliteSession(self.path, writable=writable)

    def direct(self, reactor: Reactor) -> Direct | None:
        """See `storage.pool.Backend`."""
        return SqliteDirect(self.path)

    def single(self, reactor: Reactor) -> None:
        """See `storage.pool.Backend`: writing waits for the disk."""

    def committed(self, session: SqliteSession, transaction_id: str) -> bool | None:
        """Never asked: a local COMMIT either returns or fails."""
        return None
