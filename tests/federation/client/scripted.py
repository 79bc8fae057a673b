"""The HTTP client on transports of strings: what the other side says is a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from federation.client.connection import Connection
from federation.client.errors import RemoteError
from federation.client.https import HttpAnswer, Https, StreamedAnswer
from federation.client.route import Endpoint, Route

ROUTE = Route("2", "a.example:1", "a.example", (Endpoint("a.example", 1),))
OTHER = Route("2", "b.example:1", "b.example", (Endpoint("b.example", 1),))


def answer(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    """An answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(*chunks: bytes) -> bytes:
    """An answer in chunks, with the last one."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (*chunks, b""))


class _Transport(StringTransport):
    abortions = 0

    def abortConnection(self) -> None:
        self.abortions += 1
        self.loseConnection()


class Wire:
    """One connection, seen from the other side."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transport: Any = _Transport()
        self.is_lost = False
        connection.makeConnection(self.transport)

    @property
    def is_closed(self) -> bool:
        """Whether the client ended it."""
        return bool(self.transport.disconnecting)

    @property
    def is_aborted(self) -> bool:
        """Whether the client ended it at once."""
        return bool(self.transport.abortions)

    @property
    def requests(self) -> int:
        """How many requests came."""
        return int(self.transport.value().count(b" HTTP/1.1\r\n"))

    def say(self, data: bytes, size: int = 0) -> None:
        """Send data, in pieces of so many bytes; a closed connection takes no more."""
        for start in range(0, len(data), size or len(data) or 1):
            if not self.is_closed:
                self.connection.dataReceived(data[start : start + (size or len(data))])

    def lose(self, reason: BaseException | None = None) -> None:
        """End it."""
        if not self.is_lost:
            self.is_lost = True
            self.connection.connectionLost(Failure(reason or ConnectionDone()))


class Connections:
    """A `Connector` of wires; while there is a `hold`, connecting waits for it."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.hold: Deferred[None] | None = None

    async def connect(self, route: Route, factory: Any) -> Connection:
        if self.hold is not None:
            await self.hold
        connection: Connection = factory.buildProtocol(None)
        self.wires.append(Wire(connection))
        return connection


class Asked:
    """A request under way, with a `clock` for 30 seconds."""

    def __init__(self, waiting: Any, clock: Clock | None = None) -> None:
        self.deferred: Deferred[Any] = Deferred.fromCoroutine(waiting)
        if clock is not None:
            self.deferred.addTimeout(30, clock)
        self.results: list[Any] = []
        self.deferred.addBoth(self.results.append)

    @property
    def result(self) -> Any:
        """What came of it: an answer, or an exception; None so far."""
        if not self.results:
            return None
        found = self.results[0]
        return found.value if isinstance(found, Failure) else found


class ScriptedCase(SynchronousTestCase):
    keep_alive = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.connections = Connections()
        connector: Any = self.connections
        self.https = Https(self.clock, connector, keep_alive=self.keep_alive)

    @property
    def wires(self) -> list[Wire]:
        return self.connections.wires

    def ask(
        self,
        method: str = "GET",
        *,
        route: Route = ROUTE,
        timed: bool = False,
        body: bytes = b"{}",
        **options: Any,
    ) -> Asked:
        sent = None if method == "GET" else body
        limits = {"max_bytes": 1000, "max_error_bytes": 100} | options
        asking = self.https.exchange("them", route, method, "/x", {}, sent, **limits)
        return Asked(asking, self.clock if timed else None)

    def open(self, **options: Any) -> Asked:
        limits = {"max_bytes": 1_000_000, "stalled_s": 30.0} | options
        return Asked(self.https.open("them", ROUTE, "/x", {}, **limits))

    def turn(self) -> None:
        """The next turn of the event loop."""
        self.clock.advance(0)

    def told(self, data: bytes, size: int = 0, method: str = "GET") -> tuple[Any, Wire]:
        """What comes of a request that is answered so, and its connection."""
        asked = self.ask(method)
        wire = self.wires[-1]
        wire.say(data, size)
        self.turn()
        return asked.result, wire

    def refused(self, data: bytes, kind: type[RemoteError], *, sizes: tuple[int, ...]) -> None:
        """However it arrives, this is an error, its connection ends, and others are as ever."""
        for size in sizes:
            result, wire = self.told(data, size)
            self.assertIsInstance(result, kind, f"{data[:200]!r} {size}")
            self.assertTrue(wire.is_closed, data[:200])
            wire.lose()
            self.harmless(wire)

    def harmless(self, *not_over: Wire) -> None:
        """A request is answered, and over no connection of those."""
        asked = self.ask()
        wire = self.wires[-1]
        self.assertNotIn(wire, not_over)
        wire.say(answer(b"harmless"))
        self.turn()
        self.assertEqual(self.body(asked), b"harmless")
        wire.lose()

    def body(self, asked: Asked) -> bytes:
        result = asked.result
        assert isinstance(result, HttpAnswer), result
        return result.body

    def streamed(self, asked: Asked) -> StreamedAnswer:
        result = asked.result
        assert isinstance(result, StreamedAnswer), result
        return result

    def after(self, asked: Asked, then: Callable[[], object]) -> None:
        """Do something in the moment in which the answer is there."""

        def call(result: Any) -> Any:
            then()
            return result

        asked.deferred.addBoth(call)
