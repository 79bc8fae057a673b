"""Connections of servers under test that are used again by the next test.

A process of PostgreSQL that begins reads the catalogue for each table that it meets, which is more
work than most tests ask of it. So a connection to a database of the tests is kept when its owner
closes it, reset as if it were new ("DISCARD ALL"), and given to who next connects to that
database. One that is within a transaction, busy, lost or one too many is closed.
"""

from __future__ import annotations

import select
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import POLL_OK, POLL_READ, TRANSACTION_STATUS_IDLE

from storage.postgres import CONNECTION_OPTIONS

_MOST = 30
"""Connections that are kept by one process: those of all processes share one server."""
_MOST_OF_ONE = 4
"""Of one database and one manner."""
_PATIENCE_MS = 5_000

_SERVERS = CONNECTION_OPTIONS["application_name"]
_connect: Any = psycopg2.connect
_Key = tuple[str, bool]


class _Kept(psycopg2.extensions.connection):
    """A connection that may be kept instead of closed."""

    kept_as: _Key | None = None
    is_idle = False
    """Whether it is kept now: closing it again is nothing."""

    def close(self) -> None:
        if not self.is_idle and not keep(self):
            super().close()

    def end(self) -> None:
        """Close it indeed."""
        super().close()


_idle: dict[_Key, list[_Kept]] = {}
_urls: set[str] = set()


def begin(url: str) -> None:
    """Keep what is connected to the database at `url` from now on."""
    psycopg2.connect = connect
    _urls.add(url)


def end(url: str) -> None:
    """Close what is kept of the database at `url`, and keep no more."""
    _urls.discard(url)
    for is_async in (False, True):
        for connection in _idle.pop((url, is_async), []):
            connection.end()


def processes(url: str) -> list[int]:
    """The processes of PostgreSQL behind what is kept of a database."""
    return [
        connection.info.backend_pid
        for is_async in (False, True)
        for connection in _idle.get((url, is_async), [])
    ]


def connect(dsn: str | None = None, *args: Any, **options: Any) -> Any:
    """As `psycopg2.connect`. Only what servers open themselves is kept."""
    if dsn not in _urls or options.get("application_name") != _SERVERS:
        return _connect(dsn, *args, **options)
    key = dsn, bool(options.get("async_"))
    kept = _idle.setdefault(key, [])
    while True:
        try:
            connection = kept.pop()
        except IndexError:
            connection = _connect(dsn, connection_factory=_Kept, **options)
            connection.kept_as = key
            return connection
        if _is_usable(connection):
            connection.is_idle = False
            return connection
        connection.end()


def keep(connection: _Kept) -> bool:
    """Whether a connection is kept, of which nobody needs anything any longer."""
    key = connection.kept_as
    if key is None or key[0] not in _urls or connection.closed:
        return False
    kept = _idle.setdefault(key, [])
    if len(kept) >= _MOST_OF_ONE or sum(map(len, _idle.copy().values())) >= _MOST:
        return False
    try:
        if connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
            return False
        # The answer to an asynchronous connection is read when it is needed again.
        connection.cursor().execute("DISCARD ALL")
    except psycopg2.Error:
        return False
    connection.is_idle = True
    kept.append(connection)
    return True


def _is_usable(connection: _Kept) -> bool:
    """Whether its process still lives and has reset it."""
    waiter = select.poll()
    if not connection.async_:
        # An idle process says nothing but its end.
        waiter.register(connection.fileno(), select.POLLIN)
        return not waiter.poll(0)
    try:
        while (state := connection.poll()) != POLL_OK:
            event = select.POLLIN if state == POLL_READ else select.POLLOUT
            waiter.register(connection.fileno(), event)
            if not waiter.poll(_PATIENCE_MS):
                return False
    except psycopg2.Error:
        return False
    return True
