"""Point queries on PostgreSQL over connections that the reactor itself watches.

psycopg2 in asynchronous mode: a query is sent from the reactor thread, and its answer read there
when it has come, which costs a third of two changes of thread. Connections are few, each has one
query at a time, and those that find none free wait in one queue.

Everything that fails is repeated by a thread (`NotDirect`): it is read only. So is what comes
while there is no connection.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import psycopg2
import structlog
from psycopg2 import errorcodes
from psycopg2.extensions import POLL_OK, POLL_WRITE
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from zope.interface import implementer

from storage.async_connection import Opening
from storage.direct import NotDirect
from storage.point_query import PointQuery
from storage.pool import Reactor
from storage.prepared import FIRST_PLANS, LAST_PLANS, numbered
from storage.threads import backoff
from storage.transaction import Row

PATIENCE_MS = 2_000
"""A query that the database has not answered by then is repeated by a thread, which has more."""
GRACE = 3.0
"""Seconds more in which the database is to say so; then the connection is taken for dead."""

TELL_AT = 10
"""After so many attempts to connect the operator is told."""
MAX_ERRORS = 20
"""Each may leave a prepared statement behind; then there is a new connection."""
AT_ONCE = 4_000
"""Bytes that an idle connection takes at once."""

_LOST = ("57P", "08")
"""Classes of errors: the server ends, or does not answer any more."""

_log = structlog.get_logger(__name__)


class Statement(Protocol):
    """A statement that is asked again and again."""

    @property
    def postgres(self) -> str:
        """With `?` for arguments."""


class Asked:
    """A statement, from its beginning to its answer."""

    __slots__ = ("args", "done", "query")

    def __init__(self, query: Statement, args: Sequence[Any]) -> None:
        self.query = query
        self.args = args
        self.done: Deferred[list[Row]] = Deferred()


class Owner(Protocol):
    """Whose connection it is."""

    reactor: Any

    def answered(self, link: Link, rows: list[Row]) -> None:
        """The answer to what was asked on this connection."""

    def failed(self, link: Link, error: psycopg2.Error | None) -> None:
        """What was asked on this connection found no answer, or the connection is lost."""


@implementer(IReadWriteDescriptor)
class Link:
    """A connection that the reactor watches."""

    def __init__(self, owner: Owner, connection: Any, now: float) -> None:
        self.asked: Asked | None = None
        self.sent = 0.0
        """When it was sent, in the reactor's seconds."""
        self._owner = owner
        self._connection = connection
        self._cursor = connection.cursor()
        # A number of our own: libpq closes its own as soon as the connection is lost, and it may
        # be given to somebody else before the reactor has forgotten it.
        self._fd = os.dup(connection.fileno())
        self._calls: dict[Statement, str] = {}
        """How to execute what is prepared."""
        self._number = 0
        self._errors = 0
        self._is_writing = False
        self._plans_kept = FIRST_PLANS
        self._next_plans = now + FIRST_PLANS
        owner.reactor.addReader(self)

    def send(self, asked: Asked, now: float) -> None:
        """Ask; the owner is told of the end. Raises ValueError for text that cannot be sent."""
        self.asked, self.sent = asked, now
        query = asked.query
        call = self._calls.get(query)
        try:
            if call is None:
                call = self._send_first(asked)
            elif now >= self._next_plans:
                # See `storage.prepared.LAST_PLANS`.
                self._plans_kept = min(self._plans_kept * 2, LAST_PLANS)
                self._next_plans = now + self._plans_kept
                self._cursor.execute(f"DISCARD PLANS; {call}", asked.args or None)
            else:
                self._cursor.execute(call, asked.args or None)
        except ValueError:
            self.asked = None
            raise
        except psycopg2.Error as error:
            self._owner.failed(self, error)
            return
        self._calls[query] = call
        if len(self._cursor.query) > AT_ONCE:
            self._is_writing = True
            self._owner.reactor.addWriter(self)

    def _send_first(self, asked: Asked) -> str:
        """Prepare and ask in one message. A name is used once: the statement may have failed."""
        self._number += 1
        name = f"hearth_{self._number}"
        sql = asked.query.postgres
        count = sql.count("?")
        call = f"EXECUTE {name} ({', '.join(['%s'] * count)})" if count else f"EXECUTE {name}"
        statement = f"PREPARE {name} AS {numbered(sql)}; {call}"
        self._cursor.execute(statement, asked.args or None)
        return call

    @property
    def is_open(self) -> bool:
        """Whether the connection is not known to be lost."""
        return not self._connection.closed

    def survives(self, error: psycopg2.Error, query: Statement) -> bool:
        """Whether the connection is still of use after a statement failed."""
        code = error.pgcode
        if code is None or self._connection.closed or code.startswith(_LOST):
            return False
        if code != errorcodes.QUERY_CANCELED:
            # It was not prepared, or is out of date as a table was changed: begin anew with it.
            self._calls.pop(query, None)
            self._errors += 1
        return self._errors < MAX_ERRORS

    # For the reactor

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "database"

    def doRead(self) -> None:
        """Something came, or went."""
        try:
            state = self._connection.poll()
            if self.asked is None:
                return  # a notice; an end raises
            rows = self._cursor.fetchall() if state == POLL_OK else None
        except psycopg2.Error as error:
            self._owner.failed(self, error)
            return
        if self._is_writing and state != POLL_WRITE:
            self._is_writing = False
            self._owner.reactor.removeWriter(self)
        if rows is not None:
            self._owner.answered(self, rows)

    def doWrite(self) -> None:
        """There is room for more."""
        if self.asked is not None:  # else its answer came at the same moment
            self.doRead()

    def connectionLost(self, reason: Any) -> None:
        """The reactor noticed first, or it ends."""
        self._owner.failed(self, None)

    def close(self) -> None:
        """Forget the connection. Never raises."""
        if self._fd < 0:
            return
        self._owner.reactor.removeReader(self)
        self._owner.reactor.removeWriter(self)
        os.close(self._fd)
        self._fd = -1
        Opening.end(self._connection)


class PostgresDirect:
    """See the module.

    Parameters: `limit` connections at most, opened when they are needed; `reactor` must watch
    descriptors; `statement_timeout_ms`: as for those of the threads, or less.
    """

    def __init__(self, url: str, limit: int, reactor: Reactor, statement_timeout_ms: int) -> None:
        self.reactor: Any = reactor
        self._limit = limit
        self._timeout_ms = min(statement_timeout_ms, PATIENCE_MS)
        self._opening = Opening(url, reactor, self._timeout_ms)
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._queue: deque[Asked] = deque()
        self._failures = 0
        self._not_before = 0.0
        self._watching: Any = None
        self._closed = False

    def rows(self, query: PointQuery[..., Any], args: Sequence[Any]) -> Deferred[list[Row]] | None:
        """See `storage.direct.Direct`."""
        if not self._idle:
            self._open_another()
            if not self._links:
                return None
        asked = Asked(query, args)
        if self._idle:
            self._send(self._idle.pop(), asked)
        else:
            self._queue.append(asked)
        return asked.done

    def _send(self, link: Link, asked: Asked) -> None:
        now = self.reactor.seconds()
        try:
            link.send(asked, now)
        except ValueError:
            # U+0000 or a lone surrogate, as the thread will tell.
            self._give_up(asked)
            self._next(link)
            return
        if self._watching is None and self._links:
            self._watching = self.reactor.callLater(self._dead_after, self._look)

    @property
    def _dead_after(self) -> float:
        return self._timeout_ms / 1000 + GRACE

    def _look(self) -> None:
        """Give up connections on which no answer came."""
        self._watching = None
        sent_before = self.reactor.seconds() - self._dead_after
        for link in [link for link in self._links if link.asked is not None]:
            if link.sent <= sent_before:
                self.failed(link, None)
        if any(link.asked is not None for link in self._links):
            self._watching = self.reactor.callLater(self._dead_after / 2, self._look)

    # What connections tell

    def answered(self, link: Link, rows: list[Row]) -> None:
        """The answer to what was asked on this connection."""
        asked, link.asked = link.asked, None
        self._next(link)
        if asked is not None and not asked.done.called:
            asked.done.callback(rows)

    def failed(self, link: Link, error: psycopg2.Error | None) -> None:
        """What was asked on this connection found no answer, or the connection is lost."""
        asked, link.asked = link.asked, None
        if error is not None and asked is not None and link.survives(error, asked.query):
            self._next(link)
        elif link in self._links:
            self._links.discard(link)
            if link in self._idle:
                self._idle.remove(link)
            link.close()
            self._open_another()
        if asked is not None:
            self._give_up(asked)
        if not self._links:
            # Nobody is left who could answer.
            waiting, self._queue = self._queue, deque()
            for each in waiting:
                self._give_up(each)

    def _next(self, link: Link) -> None:
        while self._queue:
            asked = self._queue.popleft()
            if not asked.done.called:  # else cancelled
                self._send(link, asked)
                return
        self._idle.append(link)

    @staticmethod
    def _give_up(asked: Asked) -> None:
        if not asked.done.called:
            asked.done.errback(NotDirect())

    # Connecting

    def _open_another(self) -> None:
        full = len(self._links) + self._opening.count >= self._limit
        if self._closed or full or self.reactor.seconds() < self._not_before:
            return
        if self._opening.count:
            return  # the next one when this is open
        self._opening.start(self._opened)

    def _opened(self, connection: Any, reason: str) -> None:
        """On the reactor thread; None: it went wrong."""
        if connection is None:
            self._failures += 1
            if self._failures == TELL_AT:
                # If the database is away, threads meet that too, and tell at once.
                _log.warning("Queries run in threads: cannot connect for them", reason=reason)
            self._not_before = self.reactor.seconds() + backoff(self._failures, 0.05, 5.0)
        elif self._closed:
            Opening.end(connection)
        else:
            self._failures = 0
            link = Link(self, connection, self.reactor.seconds())
            self._links.add(link)
            self._next(link)

    def close(self) -> None:
        """See `storage.direct.Direct`."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        for link in list(self._links):
            self.failed(link, None)
        self._opening.stop()
