"""PostgreSQL 13 or newer, through psycopg2.

Reads run REPEATABLE READ READ ONLY: one snapshot. Writes run READ COMMITTED: under REPEATABLE
READ every transaction that waited for the clock's row would fail. Before COMMIT the number of a
transaction that wrote something is known, so that a COMMIT which got no answer can be looked up.

A message to the server and its answer cost as much as a small statement. So what has no result is
sent with what comes next: BEGIN with the first statement, `Transaction.later` with the next one or
COMMIT.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import psycopg2.extensions
from psycopg2 import errorcodes
from psycopg2.extras import execute_batch, execute_values
from twisted.internet.interfaces import IReactorFDSet

from storage import clock
from storage.copying import copy_statement, copy_text
from storage.dialect import POSTGRES, check_text, split_values, to_format_style
from storage.direct import Direct
from storage.errors import (
    CommitUnknown,
    Conflict,
    ConnectionLost,
    DatabaseFull,
    DatabaseUnavailable,
    IntegrityViolation,
    InvalidText,
    TransactionTooSlow,
    UnusableDatabase,
)
from storage.pool import Reactor, SingleWriter
from storage.prepared import Prepared
from storage.transaction import Row, Transaction

MINIMUM_VERSION = 130000
FETCH = 500
"""So many rows of a result are made at a time: some milliseconds of work."""
COPY_FROM = 16
"""So many rows of a plain INSERT are sent by COPY."""
COPY_PIECE = 256 * 1024
"""So many bytes of it go in one message: each is a system call, and wakes the server."""
MOST_LATER = 64_000
"""Bytes of statements that wait for the next one."""
CONNECT_TIMEOUT = 10  # seconds
CONNECTION_OPTIONS: dict[str, Any] = {
    "application_name": "hearth",
    "client_encoding": "UTF8",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
_MIGRATION_LOCK = 0x48454152  # any number that other programs in the database do not use
_CONFLICTS = {
    errorcodes.SERIALIZATION_FAILURE,
    errorcodes.DEADLOCK_DETECTED,
    errorcodes.LOCK_NOT_AVAILABLE,
}
# The server starts, stops or recovers.
_AWAY = {errorcodes.CANNOT_CONNECT_NOW, errorcodes.TOO_MANY_CONNECTIONS}


_FAILED = "A statement had failed, so nothing was committed."
_BEGIN_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITE = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"


def _bytes(value: str | bytes | None, cursor: Any) -> bytes | None:
    buffer = psycopg2.BINARY(value, cursor)
    return None if buffer is None else bytes(buffer)


BYTEA = psycopg2.extensions.new_type((17,), "BYTES", _bytes)


def _describe(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    host = parts.hostname or "the local socket"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.path.lstrip('/') or 'default'} on {host}{port}"


def fetch_all(cursor: Any) -> list[Row]:
    """All rows of a result. Making them holds the interpreter: others get it in between."""
    rows: list[Row] = []
    if cursor.rowcount <= FETCH:
        rows = cursor.fetchall()
        return rows
    while part := cursor.fetchmany(FETCH):
        rows += part
    return rows


class PostgresTransaction(Transaction):
    """Parameters: `begin`, the statement that begins it; empty for one that commits itself."""

    __slots__ = ("_before", "_begin", "_cursor", "_is_open", "_session", "number")

    def __init__(self, session: PostgresSession, cursor: Any, begin: bytes) -> None:
        super().__init__(POSTGRES)
        self._session = session
        self._cursor = cursor
        self._begin = begin
        self._before = [begin] if begin else []
        """What is sent before the next statement, together with it."""
        self._is_open = False
        self.number: str | None = None
        """PostgreSQL's, once it has been asked for."""

    def _rendered(self, sql: str, args: Sequence[Any]) -> bytes:
        self.statements += 1
        statement = self._session.prepared.statement(sql, args)
        try:
            rendered: bytes = self._cursor.mogrify(statement, args or None)
        except (psycopg2.Error, ValueError) as error:
            raise self._session.translated(error, args) from error
        return rendered

    def _send(self, statement: bytes) -> None:
        """Run a statement, after those that wait. Raises psycopg2.Error."""
        self._cursor.execute(self._with_before(statement))

    def _with_before(self, statement: bytes) -> bytes:
        self._is_open = True
        if not self._before:
            return statement
        together = b"; ".join((*self._before, statement))
        self._before.clear()
        return together

    def _run(self, sql: str, args: Sequence[Any]) -> Any:
        statement = self._rendered(sql, args)
        try:
            self._send(statement)
        except psycopg2.Error as error:
            raise self._session.translated(error) from error
        return self._cursor

    def later(self, sql: str, args: Sequence[Any] = ()) -> None:
        if not self._begin:
            self._run(sql, args)
            return
        self._before.append(self._rendered(sql, args))
        if sum(map(len, self._before)) > MOST_LATER:
            self._flush()

    def _flush(self) -> None:
        """Send what waits. Raises psycopg2.Error."""
        if self._before:
            self._send(self._before.pop())

    def next_pos(self, n: int = 1, *, passing: str | None = None) -> int:
        if self.number is not None or not self._begin:
            return super().next_pos(n, passing=passing)
        last, self.number, self.is_passed = clock.advance_numbered(self, n, passing)
        self.took_positions(last - n + 1, last)
        return last

    def commit(self) -> str | None:
        """Send COMMIT; what the server said. None: nothing was ever sent. Raises psycopg2.Error."""
        if not self._is_open and self._before == [self._begin]:
            return None
        if self.number is None:
            self._send(b"SELECT pg_current_xact_id_if_assigned()::text")
            row = self._cursor.fetchone()
            self.number = row[0] if row is not None else None
        self._send(b"COMMIT")
        said: str = self._cursor.statusmessage
        return said

    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        changed: int = self._run(sql, args).rowcount
        return max(changed, 0)

    def one(self, sql: str, args: Sequence[Any] = ()) -> Row | None:
        row: Row | None = self._run(sql, args).fetchone()
        return row

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        return fetch_all(self._run(sql, args))

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        listed = rows if isinstance(rows, list) else list(rows)
        if not listed:
            return
        split = split_values(sql)
        if len(listed) == 1 and split is not None:
            self._run(sql, listed[0])
            return
        self.statements += 1
        try:
            if len(listed) >= COPY_FROM and (copy := copy_statement(sql)) is not None:
                # Half the work of INSERT, for both sides.
                text = copy_text(listed)
                statement = self._with_before(copy.encode())
                self._cursor.copy_expert(statement, BytesIO(text), COPY_PIECE)
                return
            self._flush()
            if split is not None:
                execute_values(self._cursor, split[0], listed, split[1], page_size=1000)
            else:
                execute_batch(self._cursor, to_format_style(sql), listed, page_size=200)
        except (psycopg2.Error, ValueError) as error:
            raise self._session.translated(error, chain.from_iterable(listed)) from error


class PostgresSession:
    """One connection. Not to be used by two threads at a time."""

    def __init__(self, url: str, *, writable: bool, statement_timeout_ms: int) -> None:
        self._url = url
        self._writable = writable
        self._open = False
        self._single = False
        self._transaction: PostgresTransaction | None = None
        self._transaction_id: str | None = None
        """Of the last one that has ended, if it got a number."""
        self.broken = False
        try:
            self._connection = psycopg2.connect(
                url, connect_timeout=CONNECT_TIMEOUT, **CONNECTION_OPTIONS
            )
        except psycopg2.OperationalError as error:
            raise DatabaseUnavailable(
                f"Cannot connect to PostgreSQL ({_describe(url)}): {str(error).strip()}"
            ) from error
        except psycopg2.Error as error:
            raise UnusableDatabase(
                f"The database URL cannot be used ({_describe(url)}): {str(error).strip()}"
            ) from error
        try:
            self._prepare(statement_timeout_ms)
        except psycopg2.Error as error:
            self.close()
            raise DatabaseUnavailable(
                f"PostgreSQL is not ready ({_describe(url)}): {str(error).strip()}"
            ) from error
        except UnusableDatabase:
            self.close()
            raise

    def _prepare(self, statement_timeout_ms: int) -> None:
        connection = self._connection
        if connection.server_version < MINIMUM_VERSION:
            raise UnusableDatabase(
                f"PostgreSQL {connection.server_version // 10000} is too old: "
                f"{MINIMUM_VERSION // 10000} or newer is needed."
            )
        # BEGIN, COMMIT and ROLLBACK are sent by this class.
        connection.autocommit = True
        psycopg2.extensions.register_type(BYTEA, connection)
        self._cursor = connection.cursor()
        self.prepared = Prepared(self._cursor)
        self._cursor.execute(
            "SET statement_timeout = %s; SET idle_in_transaction_session_timeout = %s;"
            " SET default_transaction_read_only = %s; SET standard_conforming_strings = on;"
            " SET bytea_output = 'hex'; SHOW server_encoding",
            (statement_timeout_ms, 10 * 60_000, not self._writable),
        )
        encoding = self._answer()
        if encoding != "UTF8":
            raise UnusableDatabase(
                f"The encoding of the database {_describe(self._url)} is {encoding}: create it"
                " with ENCODING 'UTF8' TEMPLATE template0."
            )

    def _answer(self) -> str:
        row = self._cursor.fetchone()
        assert row is not None, "the statement returns one row"
        return str(row[0])

    def begin(self) -> Transaction:
        self._open = True
        begin = _BEGIN_WRITE if self._writable else _BEGIN_READ
        self._transaction = PostgresTransaction(self, self._cursor, begin)
        return self._transaction

    def begin_single(self) -> Transaction:
        self._single = True
        return PostgresTransaction(self, self._cursor, b"")

    def commit(self) -> None:
        if self._single:
            # The statement was sent alone: it has committed itself.
            self._single = False
            self._between()
            return
        transaction = self._transaction
        assert transaction is not None, "it was begun"
        try:
            outcome = transaction.commit()
            self._ended()
        except psycopg2.Error as error:
            translated = self.translated(error)
            # Who has no number has written nothing, or was cut off before COMMIT was sent.
            if self.broken and transaction.number is not None:
                raise CommitUnknown(
                    f"The connection was lost during COMMIT: {str(error).strip()}",
                    transaction.number,
                ) from error
            raise translated from error
        self._open = False
        if outcome not in ("COMMIT", None):
            # The same, of which PostgreSQL has just rolled all back.
            raise IntegrityViolation(_FAILED)
        self._between()

    def _ended(self) -> None:
        if self._transaction is not None:
            self._transaction_id = self._transaction.number
            self._transaction = None

    def rollback(self) -> None:
        self._ended()
        self._single = False
        if not self._open or self.broken:
            return
        self._open = False
        status = self._connection.info.transaction_status
        if status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            return
        try:
            self._cursor.execute("ROLLBACK")
        except psycopg2.Error:
            self.broken = True
        else:
            self._between()

    def _between(self) -> None:
        try:
            self.prepared.between()
        except psycopg2.Error:
            self.broken = True

    def lock_schema(self, txn: Transaction) -> None:
        txn.execute("SELECT pg_advisory_xact_lock(?)", (_MIGRATION_LOCK,))
        # A migration may take longer than any statement of a request.
        txn.execute("SET LOCAL statement_timeout = 0")

    def committed(self, transaction_id: str) -> bool | None:
        """Whether a transaction was committed; None while or when that is not certain.

        "Aborted" is certain. "Committed" is not: after a crash PostgreSQL may have given the
        number, of which nothing was on disk, to another transaction.
        """
        try:
            self._cursor.execute("SELECT pg_xact_status(%s::xid8)", (transaction_id,))
            status = self._answer()
        except psycopg2.Error as error:
            if error.pgcode == errorcodes.INVALID_PARAMETER_VALUE:
                return False  # a number of the future: lost in a crash
            raise self.translated(error) from error
        if status == "in progress":
            raise Conflict("The server still works on the transaction.")
        return False if status == "aborted" else None

    def translated(self, error: Exception, args: Iterable[Any] = ()) -> Exception:
        """The error in the terms of `storage.errors`; notices that the connection is gone."""
        if isinstance(error, psycopg2.Error):
            return self._translated(error)
        if isinstance(error, UnicodeEncodeError):
            return InvalidText("Text holds a lone surrogate.")
        try:
            check_text(tuple(args))
        except InvalidText as invalid:
            return invalid
        return error

    def _translated(self, error: psycopg2.Error) -> Exception:
        text = str(error).strip()
        standby = self._writable and error.pgcode == errorcodes.READ_ONLY_SQL_TRANSACTION
        if self._single and self._connection.closed:
            self.broken = True
            return CommitUnknown(f"The connection was lost during a statement: {text}")
        if self._connection.closed or error.pgcode in _AWAY or standby:
            self.broken = True
            return ConnectionLost(text)
        if error.pgcode == errorcodes.FEATURE_NOT_SUPPORTED and "cached plan" in text:
            # Another version of this server changed a table: prepared statements are out of date.
            self.broken = True
            return ConnectionLost(text)
        if error.pgcode in _CONFLICTS:
            return Conflict(text)
        if error.pgcode == errorcodes.DISK_FULL:
            return DatabaseFull(text)
        if isinstance(error, psycopg2.IntegrityError):
            return IntegrityViolation(text)
        if error.pgcode == errorcodes.IN_FAILED_SQL_TRANSACTION:
            # A function goes on after an error that it caught: nothing of it will be committed.
            return IntegrityViolation(_FAILED)
        if error.pgcode == errorcodes.QUERY_CANCELED:
            return TransactionTooSlow(text)
        return error

    def close(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self._connection.close()


class PostgresBackend:
    """Opens sessions on one database."""

    dialect = POSTGRES

    def __init__(self, url: str, connections: int, statement_timeout_ms: int) -> None:
        self._url = url
        self._statement_timeout_ms = statement_timeout_ms
        self.writers = max(1, connections * 2 // 5)
        self._has_single = connections >= 6
        # It writes most of what is written.
        self.writers -= self._has_single and self.writers > 2
        self._direct = 0 if connections < 3 else 1 if connections < 10 else 2
        self.readers = max(1, connections - self.writers - self._has_single - self._direct)

    def connect(self, *, writable: bool) -> PostgresSession:
        """Open a session. Raises DatabaseUnavailable, UnusableDatabase."""
        return PostgresSession(
            self._url, writable=writable, statement_timeout_ms=self._statement_timeout_ms
        )

    def direct(self, reactor: Reactor) -> Direct | None:
        """See `storage.pool.Backend`."""
        if not self._direct or not IReactorFDSet.providedBy(reactor):
            return None
        # Imported here: it needs this module.
        from storage.direct_postgres import PostgresDirect

        return PostgresDirect(self._url, self._direct, reactor, self._statement_timeout_ms)

    def single(self, reactor: Reactor) -> SingleWriter | None:
        """See `storage.pool.Backend`."""
        if not self._has_single or not IReactorFDSet.providedBy(reactor):
            return None
        from storage.single_postgres import PostgresSingle

        return PostgresSingle(self._url, reactor, self._statement_timeout_ms)

    def committed(self, session: PostgresSession, transaction_id: str) -> bool | None:
        """See `PostgresSession.committed`."""
        return session.committed(transaction_id)
