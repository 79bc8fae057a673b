"""Writing at once, and running at once."""

from __future__ import annotations

import socket
import struct
from contextvars import ContextVar
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from homeserver.web.prompt import Running, run, write_at_once
from tests.homeserver.web import test_http, test_http_streams

real_reactor: Any = reactor


class _Server(Protocol):
    """Notes what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.events: list[str] = []

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.events.append("lost")

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        pass


class WritingTests(TestCase):
    """A connection whose other end is a blocking socket of this very thread."""

    timeout = 20

    async def open(self) -> tuple[_Server, socket.socket]:
        factory = ServerFactory()
        made: list[_Server] = []

        def build(_: object) -> _Server:
            made.append(_Server())
            return made[0]

        factory.buildProtocol = build  # type: ignore[method-assign,assignment]
        port = real_reactor.listenTCP(0, factory, interface="127.0.0.1")
        write_at_once(port)
        self.addCleanup(port.stopListening)
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(client.close)
        client.settimeout(5)
        while not made:
            await deferLater(real_reactor, 0.001)
        self.addCleanup(self.lost, made[0])
        return made[0], client

    async def lost(self, server: _Server, abort: bool = True) -> None:
        if abort and "lost" not in server.events:
            server.transport.abortConnection()
        while "lost" not in server.events:
            await deferLater(real_reactor, 0.001)

    async def test_at_once(self) -> None:
        server, client = await self.open()
        server.transport.write(b"")
        server.transport.write(b"abc")
        server.transport.write(b"def")
        # No turn of the event loop has passed.
        self.assertEqual(client.recv(10), b"abcdef")

    async def test_order_and_back_pressure(self) -> None:
        """What the kernel does not take waits, and what comes after it waits behind it."""
        server, client = await self.open()
        server.transport.registerProducer(server, True)
        parts = [bytes([number]) * 3_000_000 for number in range(4)] + [b"end"]
        for part in parts:
            server.transport.write(part)
        self.assertEqual(server.events, ["pause"] * len(server.events))
        self.assertTrue(server.events)
        client.setblocking(False)
        received = bytearray()
        while len(received) < sum(map(len, parts)):
            try:
                received += client.recv(1_000_000)
            except BlockingIOError:
                await deferLater(real_reactor, 0.001)
        self.assertEqual(received, b"".join(parts))
        await deferLater(real_reactor, 0.01)
        self.assertEqual(server.events[-1], "resume")
        server.transport.write(b"again")
        client.setblocking(True)
        self.assertEqual(client.recv(10), b"again")

    async def test_close_after_writing(self) -> None:
        server, client = await self.open()
        server.transport.write(b"abc")
        server.transport.loseConnection()
        await self.lost(server, abort=False)
        self.assertEqual((client.recv(10), client.recv(10)), (b"abc", b""))
        server.transport.write(b"too late")

    async def test_a_client_that_is_gone(self) -> None:
        """An error of the socket is met by the event loop, not by who writes."""
        server, client = await self.open()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        for _ in range(3):
            server.transport.write(b"abc")
        self.assertEqual(server.events, [])
        await self.lost(server, abort=False)


class StockTransportTests(test_http.PipeliningTests, test_http_streams.LargeResponseTests):
    """What is otherwise tested with connections that write at once, with those that do not."""

    at_once = False


_context: ContextVar[str] = ContextVar("_context", default="outside")


class RunningTests(SynchronousTestCase):
    def test_ends_at_once(self) -> None:
        seen: list[str] = []

        async def work() -> str:
            _context.set("inside")
            seen.append(await succeed("value"))
            return "result"

        self.assertEqual(run(work(), self.fail), "result")
        self.assertEqual((seen, _context.get()), (["value"], "outside"))

    def test_fails_at_once(self) -> None:
        async def work() -> None:
            await succeed(None)
            raise KeyError("x")

        with self.assertRaises(KeyError):
            run(work(), self.fail)

    def test_waits(self) -> None:
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        seen: list[str] = []

        async def work() -> int:
            _context.set("inside")
            total = await first
            seen.append(_context.get())
            try:
                total += await second
            except ValueError:
                total += 100
            seen.append(_context.get())
            return total

        waiting: Deferred[Any] = Deferred()
        running = run(work(), waiting.callback)
        assert running is not None
        self.assertEqual(_context.get(), "outside")
        first.callback(1)
        self.assertNoResult(waiting)
        second.errback(ValueError())
        self.assertEqual(self.successResultOf(waiting), 101)
        self.assertEqual((seen, _context.get()), (["inside", "inside"], "outside"))

    def test_fails_later(self) -> None:
        first: Deferred[None] = Deferred()

        async def work() -> None:
            await first
            raise KeyError("x")

        waiting: Deferred[Any] = Deferred()
        running = run(work(), waiting.callback)
        assert running is not None
        first.callback(None)
        self.failureResultOf(waiting, KeyError)

    def test_cancelled(self) -> None:
        cancelled: list[str] = []
        first: Deferred[None] = Deferred(lambda _: cancelled.append("first"))

        async def work() -> None:
            try:
                await first
            except CancelledError:
                cancelled.append("work")
                raise

        waiting: Deferred[Any] = Deferred()
        running = run(work(), waiting.callback)
        assert running is not None
        running.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(cancelled, ["first", "work"])

    def test_goes_on_after_it_was_cancelled(self) -> None:
        """It ends when it says so, and not when it is told to; once."""
        first: Deferred[None] = Deferred()
        second: Deferred[str] = Deferred()
        ends: list[Any] = []

        async def work() -> str:
            try:
                await first
            except CancelledError:
                return await second
            return "not cancelled"

        running = run(work(), ends.append)
        assert isinstance(running, Running)
        running.cancel()
        self.assertEqual(ends, [])
        second.callback("cleaned up")
        self.assertEqual(ends, ["cleaned up"])
        running.cancel()
        self.assertEqual(ends, ["cleaned up"])
