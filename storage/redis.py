"""Connections to Redis, from a URL: redis://[user:password@]host[:port][/number] or unix://PATH."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import txredisapi
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure


class RedisAddress(NamedTuple):
    """What a URL says."""

    host: str
    port: int
    path: str | None
    """Of a Unix socket, instead of host and port."""
    database: int | None
    username: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Raises ValueError for what is no URL of Redis."""
        parts = urlsplit(url)
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "unix":
            return cls("", 0, parts.path, None, username, password)
        if parts.scheme != "redis":
            raise ValueError("A Redis URL starts with redis:// or unix://.")
        number = parts.path.strip("/")
        if number and not number.isdigit():
            raise ValueError("The path of a Redis URL is the number of a database.")
        database = int(number) if number else None
        host = parts.hostname or "localhost"
        return cls(host, parts.port or 6379, None, database, username, password)

    def start(self, reactor: Any, factory: Any) -> None:
        """Have `factory` connect, and connect again whenever the connection is lost."""
        from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint

        if self.path is not None:
            unix: Any = UNIXClientEndpoint
            endpoint: Any = unix(reactor, self.path)
        else:
            endpoint = HostnameEndpoint(reactor, self.host, self.port)
        factory.startConnecting(endpoint)

    def client(self, reactor: Any) -> RedisClient:
        """A client for commands."""
        factory = txredisapi.RedisFactory(
            f"{self.host}:{self.port}",
            self.database,
            1,
            True,
            charset=None,
            password=self.password,
            username=self.username,
            replyTimeout=10,
        )
        factory.protocol = _Commands
        factory.maxDelay = 2
        self.start(reactor, factory)
        return RedisClient(factory)


class _Commands(txredisapi.RedisProtocol):  # type: ignore[misc]
    """A connection that is of no use any more once a reply did not come in time.

    txredisapi ends such a connection, but still works off what it has read of it: a reply that
    came late went to whoever asked next, who took it for the answer to something else.
    """

    given_up = False

    def execute_command(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """As txredisapi's. Raises txredisapi.ConnectionError."""
        if self.given_up:
            raise txredisapi.ConnectionError("Not connected")
        result: Deferred[Any] = super().execute_command(*args, **kwargs)
        return result.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        if isinstance(failure.value, txredisapi.TimeoutError):
            self.given_up = True
        return failure

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        # Also called later, without anything new, for what was read before.
        if not self.given_up:
            super().dataReceived(data, unpause)


class RedisClient:
    """Sends commands. The first wait for the connection; when it was lost later, they fail at
    once with `txredisapi.ConnectionError` until there is one again.
    """

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return bool(self._factory.size)

    def command(self, *arguments: Any) -> Deferred[Any]:
        """Run a command; the reply, strings as bytes."""
        if not self.connected and self._factory.deferred is None:
            return fail(txredisapi.ConnectionError("Not connected"))
        result: Deferred[Any] = self._factory.handler.execute_command(*arguments)
        return result

    def close(self) -> Deferred[Any]:
        """Close the connection for good."""
        closed: Deferred[Any] = self._factory.disconnect()
        return closed
