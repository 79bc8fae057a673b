"""Requests that are made to be understood differently by two servers, and clients that only wait.

What is refused at all is in `test_http`; here every attack is followed by a harmless request on a
connection of its own, which must be answered, and whatever was hidden must not be handled.
"""

from __future__ import annotations

import resource
import socket
import tracemalloc
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from homeserver.web.http import HttpFactory, HttpLimits
from homeserver.web.http_connection import HttpConnection
from tests.homeserver.web.raw_http import Application, HttpTestCase, request
from tests.support.log import CapturedLog

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW = 10_000


class SmugglingTests(HttpTestCase):
    async def attack(self, data: bytes, sizes: tuple[int, ...] = (0, 1)) -> list[list[str]]:
        """The paths that are handled when `data` is sent whole, and byte by byte."""
        handled = []
        for size in sizes:
            self.application.requests.clear()
            client = await self.connect()
            for start in range(0, len(data), size or len(data)):
                client.send(data[start : start + (size or len(data))])
                if size:
                    await self.later(0)
            client.transport.loseWriteConnection()  # type: ignore[union-attr]
            await client.closed()
            handled.append([each.path for each in self.application.requests])
            other = await self.connect(request("GET", "/harmless"))
            await other.ends(b"GET /harmless ")
        return handled

    async def handles(self, data: bytes, *paths: str) -> None:
        """However it arrives, this and no more is handled."""
        for handled in await self.attack(data):
            self.assertEqual(handled, list(paths), data[:300])

    async def test_conflicting_lengths(self) -> None:
        for lengths in (
            b"Content-Length: 3\r\nContent-Length: 60",
            b"Content-Length: 60\r\nContent-Length: 3",
            b"Content-Length: 3, 60",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3",
            b"Content-Length: 3\r\nTransfer-Encoding: x",
            b"Content-Length : 3",
            b"Content-Length: 3\r\ncontent-length: 3",
            b"Content-Length: 3\x00",
            b"Content-Length: \xb3",
            b"Content-Length: 1_0",
            b"Content-Length: 3;",
            b"Content-Length: 0x03",
            b'Content-Length: "3"',
        ):
            head = b"POST /x HTTP/1.1\r\nHost: a\r\n" + lengths + b"\r\n\r\n"
            await self.handles(head + b"0\r\n\r\n" + HIDDEN)

    async def test_hidden_transfer_codings(self) -> None:
        for line in (
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: chunked;x=y",
            b"Transfer-Encoding:\tchunked\x0b",
            b"Transfer_Encoding: chunked\r\nTransfer-Encoding: nothing",
            b'Transfer-Encoding: "chunked"',
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            b"X: x\r\n\tTransfer-Encoding: chunked",
            b"Transfer-Encoding\r\n: chunked",
        ):
            head = b"POST /x HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"
            await self.handles(head + b"0\r\n\r\n" + HIDDEN)

    async def test_obsolete_folding(self) -> None:
        """RFC 9112, "Obsolete Line Folding": refused, wherever it is."""
        for line in (
            b"X: a\r\n b",
            b"X: a\r\n\tb",
            b"X: a\r\n \r\n",
            b"X:\r\n a",
            b"Host: a\r\n b",
            b"Content-Length: 3\r\n 0",
            b" Content-Length: 3",
        ):
            await self.handles(b"GET /x HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n" + HIDDEN)
            await self.handles(b"GET /x HTTP/1.1\r\n" + line + b"\r\nHost: a\r\n\r\n" + HIDDEN)

    async def test_bare_line_ends(self) -> None:
        """Neither CR nor LF alone ends a line, in heads and in chunks."""
        for data in (
            b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 90\r\n\r\n",
            b"GET /x HTTP/1.1\rHost: a\r\n\r\n",
            b"GET /x HTTP/1.1\r\rHost: a\r\n\r\n",
            b"GET /x\r HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
            b"GET /x HTTP/1.1\nHost: a\n\n",
            b"GET /x HTTP/1.1\r\nHost: a\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\nX\r: y\r\n\r\n",
            b"\rGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\rGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            CHUNKED + b"3\nabc\r\n0\r\n\r\n",
            CHUNKED + b"3\rabc\r\n0\r\n\r\n",
            CHUNKED + b"3\r\nabc\n0\r\n\r\n",
            CHUNKED + b"3\r\nabc\r\n0\n\n",
            CHUNKED + b"3\r\nabc\r\n0\r\nX: a\rY: b\r\n\r\n",
            CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        ):
            await self.handles(data + HIDDEN)

    async def test_request_splitting(self) -> None:
        """What looks like a request within another is part of it, or nothing is handled."""
        for data in (
            b"GET /x%0d%0aHost:%20b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x?q=%0d%0a%0d%0aGET%20/hidden HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
            CHUNKED + b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
            # Trailers are nobody's headers; behind chunks nothing is taken up.
            CHUNKED + b"0\r\nHost: b\r\n\r\n" + HIDDEN,
            CHUNKED + b"0\r\n\r\n" + HIDDEN,
        ):
            (handled,) = await self.attack(data, (0,))
            self.assertEqual([path[:2] for path in handled], ["/x"], data)
        for data in (
            CHUNKED + b"0\r\nContent-Length: 90\r\n\r\n",
            CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\nContent-Length: 90\r\n\r\n",
            b"GET /x HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x\r\nHost: a\r\n\r\n",
            b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET\t/x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x HTTP/1.10\r\nHost: a\r\n\r\n",
            b"GET /x RTSP/1.0\r\nHost: a\r\n\r\n",
            b"GET /x http/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GE\0T /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b": x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ):
            await self.handles(data + HIDDEN)

    async def test_chunk_sizes(self) -> None:
        for start in (
            b"+3\r\nabc",
            b"3 \r\nabc",
            b" 3\r\nabc",
            b"0x3\r\nabc",
            b"\r\n3\r\nabc",
            b"3\r\nabcX",
            b"3\r\nab\r\n",
            b"ffffffffffffffffffff\r\nabc",
            b"10000000000000003\r\nabc",
            b"-1\r\n",
            b"3,3\r\nabc",
        ):
            await self.handles(CHUNKED + start + b"\r\n0\r\n\r\n" + HIDDEN)

    async def test_huge_chunk_extensions(self) -> None:
        """Extensions are read over, but nobody sends megabytes of them."""
        small = CHUNKED + b"3;name=value;other\r\nabc\r\n0;end\r\n\r\n"
        await self.handles(small, "/x")
        for data in (
            CHUNKED + b"3;" + b"x" * 5_000_000 + b"\r\nabc\r\n0\r\n\r\n",
            CHUNKED + (b"1;" + b"x" * 1000 + b"\r\na\r\n") * 5000 + b"0\r\n\r\n",
            CHUNKED + b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 1_000_000 + b"\r\n",
            CHUNKED + b"0\r\nX: " + b"y" * 5_000_000 + b"\r\n\r\n",
            CHUNKED + b"0" * 5_000_000 + b"3\r\nabc\r\n0\r\n\r\n",
        ):
            (handled,) = await self.attack(data, (0,))
            self.assertEqual(handled, [], data[:80])


class SlowClients(SynchronousTestCase):
    """Ten thousand clients that send a byte now and then, on transports of strings."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.application = Application()
        log = CapturedLog().logger
        self.factory = HttpFactory(self.application, clock=self.clock, log=log)
        self.factory.startFactory()
        self.addCleanup(self.factory.stop)

    def connect(self, count: int) -> list[tuple[HttpConnection, StringTransport]]:
        made = []
        for _ in range(count):
            connection = self.factory.buildProtocol(None)
            assert connection is not None
            transport = StringTransport()
            connection.makeConnection(transport)
            made.append((connection, transport))
        return made

    def test_slow_heads(self) -> None:
        clients = self.connect(SLOW)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for connection, _ in clients:
            connection.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(29):
            self.clock.advance(1)
            for connection, _ in clients[::50]:
                connection.dataReceived(b"x")
        used, _ = tracemalloc.get_traced_memory()
        # Each holds what it has sent, no parser.
        self.assertLess(used / SLOW, 1500)
        self.assertTrue(all(not transport.value() for _, transport in clients))
        # Others are answered meanwhile.
        ((connection, transport),) = self.connect(1)
        connection.dataReceived(request("GET", "/harmless"))
        self.assertTrue(transport.value().endswith(b"GET /harmless "))
        self.clock.advance(2)
        for _, transport in clients:
            self.assertIn(b" 408 ", transport.value())
        self.clock.pump([1] * 5)
        self.assertTrue(all(transport.disconnecting for _, transport in clients))
        self.assertFalse(self.application.requests[1:])

    def test_blank_lines(self) -> None:
        """Blank lines before a request are no request, and keep no connection either."""
        for lines in (b"\r\n", b"\r"):
            ((connection, transport),) = self.connect(1)
            for number in range(40):
                if not transport.disconnecting:
                    connection.dataReceived(
                        lines if lines == b"\r\n" else b"\r\n"[number % 2 :][:1]
                    )
                self.clock.advance(1)
            self.assertTrue(transport.disconnecting)
        ((connection, transport),) = self.connect(1)
        connection.dataReceived(b"\r\n" * 1000 + b"\r")
        connection.dataReceived(b"\n" + request("GET", "/after"))
        self.assertTrue(transport.value().endswith(b"GET /after "))

    def test_slow_bodies(self) -> None:
        """A body of which a byte comes now and then is taken as long as a body may take."""
        clients = self.connect(1000)
        for connection, _ in clients:
            connection.dataReceived(request("PUT", "/x", b"x" * 1000)[:-1000])
        for _ in range(int(HttpLimits().body_seconds) + 1):
            for connection, _ in clients[::10]:
                connection.dataReceived(b"x")
            self.clock.advance(1)
        for _, transport in clients:
            self.assertIn(b" 408 ", transport.value())
        self.assertEqual(self.application.requests, [])

    def test_never_more_than_allowed(self) -> None:
        """Beyond the limit those make room who have waited longest without a request."""
        log = CapturedLog().logger
        limits = HttpLimits(max_connections=100)
        self.factory = HttpFactory(self.application, clock=self.clock, log=log, limits=limits)
        idle = self.connect(50)
        self.clock.advance(1)
        slow = self.connect(50)
        for connection, _ in slow:
            connection.dataReceived(b"GET ")
        (newest,) = self.connect(1)
        closed = [transport.disconnecting for _, transport in (*idle, *slow)]
        # Ten at once, so that this is not asked for each: those with the least time left.
        self.assertEqual((sum(closed), sum(closed[:50])), (10, 0))
        newest[0].dataReceived(request("GET", "/harmless"))
        self.assertTrue(newest[1].value().endswith(b"GET /harmless "))

    def test_those_with_requests_stay(self) -> None:
        async def wait(_: Any) -> Any:
            await Deferred()

        self.application.answer = wait
        log = CapturedLog().logger
        limits = HttpLimits(max_connections=10)
        self.factory = HttpFactory(self.application, clock=self.clock, log=log, limits=limits)
        waiting = self.connect(10)
        for connection, _ in waiting:
            connection.dataReceived(request())
        self.assertIsNone(self.factory.buildProtocol(None))
        self.assertFalse(any(transport.disconnecting for _, transport in waiting))
        for connection, _ in waiting:
            connection.connectionLost(None)  # type: ignore[arg-type]


class SlowSocketTests(HttpTestCase):
    """The same over loopback."""

    timeout = 120

    async def test_ten_thousand(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = min(SLOW, (hard - 600) // 2)
        if count < 1000:
            raise SkipTest("too few files may be open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        address = "127.0.0.1", self.port.getHost().port
        slow: list[socket.socket] = []

        def close() -> None:
            for each in slow:
                each.close()

        self.addCleanup(close)
        for number in range(count):
            # From several addresses: one does not have so many ports to give.
            each = socket.create_connection(
                address, source_address=(f"127.0.0.{2 + number % 10}", 0)
            )
            slow.append(each)
            each.send(b"GET / HTTP/1.1\r\nX: ")
            if not number % 40:
                await self.later(0)
        await self.eventually(lambda: len(self.factory.connections) == count)
        await self.eventually(lambda: all(each._buffer for each in self.factory.connections))
        client = await self.connect(request("GET", "/harmless"))
        await client.ends(b"GET /harmless ")
        self.pass_time(29)
        slow[0].send(b"x")
        self.assertEqual(len(self.factory.connections), count + 1)
        self.pass_time(2)
        await self.later(0.01)
        self.pass_time(5)
        await self.eventually(lambda: len(self.factory.connections) == 1)
        for each in (slow[0], slow[-1]):
            self.assertIn(b" 408 ", each.recv(1000))
        client.send(request("GET", "/still"))
        await client.ends(b"GET /still ")
