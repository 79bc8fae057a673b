"""Statements that write, over one connection that the reactor itself watches.

One at a time, and small ones: who finds it busy, or not open yet, or has much to say, lets a
thread do it. A statement that the database refused has written nothing, and a thread repeats it,
which tells why. When the connection is lost, nobody knows what became of the statement: it may
even be still at work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg2
import structlog
from psycopg2 import errorcodes
from twisted.internet.defer import Deferred

from storage.async_connection import Opening
from storage.direct import NotDirect
from storage.direct_postgres import GRACE, PATIENCE_MS, TELL_AT, Asked, Link
from storage.errors import CommitUnknown
from storage.pool import Reactor
from storage.threads import backoff
from storage.transaction import Row

_log = structlog.get_logger(__name__)

LARGEST = 8_000
"""Characters of arguments. What is larger is sent in pieces, between which the reactor would have
to wait each time: a thread does it with less work."""

_REFUSED = ("22", "23", "40", "53", "54", "55")
"""Classes of errors of statements that have nothing to do with their connection."""
_REFUSED_HERE = ("0A", "25", "42")
"""Classes of errors after which another connection may do better: a plan that is out of date, a
server that only reads."""


class _Text(NamedTuple):
    postgres: str


class PostgresSingle:
    """See the module.

    Parameters: `reactor` must watch descriptors; `statement_timeout_ms`: as for the connections of
    the threads, or less.
    """

    def __init__(self, url: str, reactor: Reactor, statement_timeout_ms: int) -> None:
        self.reactor: Any = reactor
        timeout_ms = min(statement_timeout_ms, PATIENCE_MS)
        self._opening = Opening(url, reactor, timeout_ms, writable=True)
        self._dead_after = timeout_ms / 1000 + GRACE
        self._link: Link | None = None
        self._failures = 0
        self._not_before = 0.0
        self._watching: Any = None
        self._closed = False

    def row(self, sql: str, args: Sequence[str]) -> Deferred[list[Row]] | None:
        """Run a statement with `?` for arguments; fires with its rows. None: not this way.

        Fails with NotDirect if it has done nothing and a thread is to do it, and with
        CommitUnknown.
        """
        link = self._link
        if link is None:
            self._open()
            return None
        if link.asked is not None or sum(map(len, args)) > LARGEST:
            return None
        asked = Asked(_Text(sql), args)
        try:
            link.send(asked, self.reactor.seconds())
        except ValueError:
            return None  # U+0000 or a lone surrogate, as the thread will tell
        if link.asked is asked:
            self._watching = self.reactor.callLater(self._dead_after, self.failed, link, None)
        return asked.done

    # What the connection tells

    def answered(self, link: Link, rows: list[Row]) -> None:
        """See `storage.direct_postgres.Owner`."""
        asked, link.asked = link.asked, None
        self._unwatch()
        if asked is not None:
            asked.done.callback(rows)

    def failed(self, link: Link, error: psycopg2.Error | None) -> None:
        """See `storage.direct_postgres.Owner`."""
        asked, link.asked = link.asked, None
        self._unwatch()
        code = error.pgcode if error is not None and link.is_open else None
        is_usable = code == errorcodes.QUERY_CANCELED or (code or "")[:2] in _REFUSED
        was_refused = is_usable or (code or "")[:2] in _REFUSED_HERE
        if not is_usable:
            self._link = None
            link.close()
            self._open()
        if asked is not None:
            lost = CommitUnknown("The connection was lost during a statement.")
            asked.done.errback(NotDirect() if was_refused else lost)

    def _unwatch(self) -> None:
        if self._watching is not None and self._watching.active():
            self._watching.cancel()
        self._watching = None

    # Connecting

    def _open(self) -> None:
        if self._closed or self._opening.count or self.reactor.seconds() < self._not_before:
            return
        self._opening.start(self._opened)

    def _opened(self, connection: Any, reason: str) -> None:
        if connection is None:
            self._failures += 1
            if self._failures == TELL_AT:
                _log.warning("Messages are written in threads: cannot connect", reason=reason)
            self._not_before = self.reactor.seconds() + backoff(self._failures, 0.05, 5.0)
        elif self._closed:
            Opening.end(connection)
        else:
            self._failures = 0
            self._link = Link(self, connection, self.reactor.seconds())

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._link is not None:
            self.failed(self._link, None)
        self._opening.stop()
