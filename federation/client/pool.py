"""Connections to other servers that are kept for the next request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from federation.client.connecting import Connector
from federation.client.connection import Connection
from federation.client.route import Route

IDLE_CONNECTION_S = 60.0
"""For how long a connection is kept for the next request."""
MAX_AGE_S = 3600.0
"""For how long one is used, however busy it is: then the name is looked up and judged again, and
the certificate shown."""
MAX_IDLE_PER_SERVER = 2
MAX_IDLE = 2000
"""Of all servers together."""
CLOSING_S = 5.0
"""For how long the other side may take to agree that a connection ends."""


class Pool:
    """Makes connections along routes, and keeps those that can be asked again."""

    def __init__(self, clock: Any, connector: Connector, *, keep_alive: bool) -> None:
        """`clock` provides IReactorTime. Without `keep_alive` each connection has one request."""
        self._clock = clock
        self._connector = connector
        self._keep_alive = keep_alive
        self._idle: dict[object, list[Connection]] = {}
        self._resting = _Deadlines(clock, IDLE_CONNECTION_S, self._expire)
        self._closing = _Deadlines(clock, CLOSING_S, Connection.cut)
        self._settling: list[Connection] = []
        self._emptied: Deferred[None] | None = None
        self._is_closed = False

    def take(self, route: Route) -> Connection | None:
        """The connection that was used last of those kept for a route; None if there is none."""
        while kept := self._idle.get(route.key):
            connection = kept[-1]
            self._forget(connection)
            if connection.is_idle:
                return connection
            connection.abort()
        return None

    async def connect(self, route: Route) -> Connection:
        """A new connection; raises `CannotConnect` and what Twisted raises."""
        made: Any = await self._connector.connect(route, _Factory(self, route.key))
        connection: Connection = made
        return connection

    def new(self, key: object) -> Connection:
        """A connection that is about to be made. Where it has one request only, no other answer
        can be behind it, and odd servers of the web are understood, too."""
        connection = Connection(self, key, lenient=not self._keep_alive)
        connection.until = self._clock.seconds() + MAX_AGE_S
        return connection

    async def close(self) -> None:
        """Close the kept connections, and wait for those that are being closed."""
        self._is_closed = True
        for kept in list(self._idle.values()):
            for connection in list(kept):
                self._expire(connection)
        self._resting.stop()
        self._settle_all()
        if self._closing.members:
            self._emptied = Deferred()
            await self._emptied

    # What connections call: see `federation.client.connection.Owner`

    def settle(self, connection: Connection) -> None:
        self._settling.append(connection)
        if len(self._settling) == 1:
            self._clock.callLater(0, self._settle_all)

    def keep(self, connection: Connection) -> None:
        kept = self._idle.get(connection.key)
        is_old = self._clock.seconds() >= connection.until
        if not self._keep_alive or self._is_closed or is_old:
            connection.close()
            return
        if kept is None:
            self._idle[connection.key] = [connection]
        elif len(kept) < MAX_IDLE_PER_SERVER:
            kept.append(connection)
        else:
            connection.close()
            return
        self._resting.add(connection)
        if len(self._resting.members) > MAX_IDLE:
            self._expire(next(iter(self._resting.members)))

    def closing(self, connection: Connection) -> None:
        self._closing.add(connection)

    def lost(self, connection: Connection) -> None:
        self._forget(connection)
        self._closing.discard(connection)
        if not self._closing.members:
            self._closing.stop()
            emptied, self._emptied = self._emptied, None
            if emptied is not None:
                emptied.callback(None)

    def _settle_all(self) -> None:
        settling, self._settling = self._settling, []
        for connection in settling:
            connection.settled()

    def _forget(self, connection: Connection) -> None:
        """It is not kept any more."""
        self._resting.discard(connection)
        kept = self._idle.get(connection.key)
        if kept is not None and connection in kept:
            kept.remove(connection)
            if not kept:
                del self._idle[connection.key]

    def _expire(self, connection: Connection) -> None:
        self._forget(connection)
        connection.close()


@implementer(IProtocolFactory)
class _Factory:
    noisy = False

    def __init__(self, pool: Pool, key: object) -> None:
        self._pool = pool
        self._key = key

    def doStart(self) -> None:
        """Nothing to start."""

    def doStop(self) -> None:
        """Nothing to stop."""

    def buildProtocol(self, addr: object) -> Connection:
        return self._pool.new(self._key)


class _Deadlines:
    """Connections that have the same time for something: one timer for those that began first."""

    def __init__(self, clock: Any, seconds: float, expired: Callable[[Connection], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._expired = expired
        self._timer: Any = None
        self.members: dict[Connection, float] = {}
        """The oldest first, and until when each has time."""

    def add(self, connection: Connection) -> None:
        self.members[connection] = self._clock.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._look)

    def discard(self, connection: Connection) -> None:
        self.members.pop(connection, None)

    def stop(self) -> None:
        """No timer; none may be among the members."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self.members:
            connection, until = next(iter(self.members.items()))
            if until > now:
                self._timer = self._clock.callLater(until - now, self._look)
                return
            del self.members[connection]
            self._expired(connection)
