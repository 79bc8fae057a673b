"""Point queries on SQLite, called straight from the reactor thread.

A read of rows that are in memory takes microseconds, a thirtieth of what a way to a thread and
back costs. Three things keep the reactor from being held up:

- `PointQuery.most`: what finds more rows than it is meant to is run by a thread.
- Work: SQLite is interrupted after `MOST_STEPS` of its instructions, or twice as many, and that
  query is left to threads for the next `REST` times.
- Time: when two of a few took longer than `SLOW`, pages are not in memory; all queries are left to
  threads for a while, which read them. (One alone was interrupted by something else.)
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.dialect import check_text
from storage.errors import InvalidText
from storage.point_query import PointQuery
from storage.transaction import Row

MOST_STEPS = 20_000
"""About a millisecond. A point read is some thirty."""
SLOW = 0.01
"""Seconds."""
FEW = 20
REST = 100
"""So many queries."""
_CACHE_KIB = 2_000


class SqliteDirect:
    """A connection of the reactor thread; see the module. Opened by the first query.

    Parameters: `clock` gives seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.perf_counter) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._resting = 0
        self._ticks = 0
        self._suspicious = 0
        """How many queries are still to come of those that are few after a slow one."""
        self._heavy: dict[PointQuery[..., Any], int] = {}
        self._closed = False

    def rows(self, query: PointQuery[..., Any], args: Any) -> list[Row] | None:
        """See `storage.direct.Direct`."""
        if self._resting:
            self._resting -= 1
            return None
        if self._heavy and self._is_heavy(query):
            return None
        self._ticks = 0
        began = self._clock()
        try:
            check_text(args)
            connection = self._connection or self._open()
            if connection is None:
                return None
            cursor = connection.execute(query.sqlite, args)
            found: list[Row] = cursor.fetchmany(query.most + 1)
            if len(found) > query.most:
                # A statement that is not at its end would keep its snapshot.
                cursor.close()
                return None
        except (InvalidText, UnicodeEncodeError):
            return None
        except sqlite3.Error as error:
            self._failed(query, error)
            return None
        if self._clock() - began > SLOW:
            if self._suspicious:
                self._resting, self._suspicious = REST, 0
            else:
                self._suspicious = FEW
        elif self._suspicious:
            self._suspicious -= 1
        return found

    def _is_heavy(self, query: PointQuery[..., Any]) -> bool:
        left = self._heavy.get(query, 0)
        if left > 1:
            self._heavy[query] = left - 1
        elif left:
            del self._heavy[query]
        return left > 0

    def _failed(self, query: PointQuery[..., Any], error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            self._heavy[query] = REST
        elif code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            # Whatever it is, a thread meets it too, and tells.
            self._resting = REST
            self._disconnect()

    def _open(self) -> sqlite3.Connection | None:
        if self._closed:
            return None
        # Statements begin and end by themselves: each is its own snapshot.
        connection = sqlite3.connect(
            self._path, timeout=0, isolation_level=None, cached_statements=128
        )
        self._connection = connection
        for setting in (
            # To wait would stop everything.
            "busy_timeout = 0",
            "query_only = ON",
            f"cache_size = -{_CACHE_KIB}",
            "mmap_size = 0",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {setting}")
        connection.set_progress_handler(self._tick, MOST_STEPS)
        return connection

    def _tick(self) -> bool:
        """Whether to interrupt. SQLite counts the steps of a statement from its first use on, so
        that only a second tick tells of work that was done now."""
        self._ticks += 1
        return self._ticks > 1

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """See `storage.direct.Direct`."""
        self._closed = True
        self._disconnect()
