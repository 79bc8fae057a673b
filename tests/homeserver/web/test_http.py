"""The HTTP protocol over real sockets."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator

import trustme
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory

from homeserver.core.errors import MatrixError, forbidden
from homeserver.web.http import HttpLimits
from homeserver.web.request import BodyPlan, Request
from homeserver.web.responses import Response, error_response
from tests.homeserver.web.raw_http import HttpTestCase, RawClient, real_reactor, request
from tests.homeserver.web.sample import BASE, Sample


def status(data: bytes) -> int:
    """The status of the last response in `data`."""
    return int(re.findall(rb"(?:^|[^ ])HTTP/1.1 ([0-9]{3}) ", data)[-1])


class ExchangeTests(HttpTestCase):
    """Requests that are answered."""

    async def test_get(self) -> None:
        client = await self.connect(request("GET", "/a?b=c%20d"))
        data = await client.ends(b"GET /a?b=c%20d ")
        head = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
        self.assertEqual(
            head,
            [
                b"HTTP/1.1 200 OK",
                b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
                b"Content-Length: 15",
            ],
        )
        seen = self.application.requests[0]
        self.assertEqual((seen.path, seen.raw_query), ("/a", "b=c%20d"))
        self.assertEqual(seen.remote_address, "127.0.0.1")

    async def test_headers(self) -> None:
        """Names in any case, repeated ones joined, and values that are not UTF-8."""
        await (
            await self.connect(
                b"GET / HTTP/1.1\r\nhOsT: a\r\nAccept: b\r\nACCEPT: c\r\nUser-Agent: \xff\xfe\r\n"
                b"Authorization: \xc3\x28\r\n\r\n"
            )
        ).ends(b"GET / ")
        seen = self.application.requests[0]
        self.assertEqual(seen.header("Accept"), "b, c")
        self.assertEqual(seen.headers[b"user-agent"], b"\xff\xfe")
        self.assertEqual(seen.user_agent, "��")
        self.assertIsNone(seen.header("missing"))

    async def test_bad_token_bytes(self) -> None:
        sample = Sample()
        self.application.answer = sample.router.handle
        client = await self.connect(
            f"GET {BASE}/account/whoami HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ".encode()
            + b"\xff\r\n\r\n"
        )
        self.assertIn(b"M_UNKNOWN_TOKEN", await client.ends(b"}"))

    async def test_body(self) -> None:
        client = await self.connect(request("PUT", "/x", b"hello"))
        await client.ends(b"PUT /x hello")

    async def test_body_in_pieces(self) -> None:
        client = await self.connect()
        for byte in request("PUT", "/x", b"hello"):
            client.send(bytes([byte]))
            await self.later(0)
        await client.ends(b"PUT /x hello")

    async def test_large_body(self) -> None:
        body = bytes(range(256)) * 3000
        client = await self.connect(request("PUT", "/x", body))
        await client.ends(b"PUT /x " + body)

    async def test_chunked(self) -> None:
        client = await self.connect(
            request("PUT", "/x", None, "Transfer-Encoding: chunked")
            + b"3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
        )
        await client.ends(b"PUT /x abcdefg")
        self.assertIsNone(self.application.requests[0].header("trailer"))
        client.send(request())
        await client.ends(b"GET /x ")

    async def test_chunked_in_pieces(self) -> None:
        client = await self.connect(request("PUT", "/x", None, "Transfer-Encoding: chunked"))
        for byte in b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n":
            client.send(bytes([byte]))
            await self.later(0)
        await client.ends(b"PUT /x abcde")

    async def test_absolute_form(self) -> None:
        client = await self.connect()
        for target, seen in (
            ("http://example.org/a/b?c=d", b"GET /a/b?c=d "),
            ("HTTPS://example.org:8448/a%2Fb", b"GET /a%2Fb "),
            ("http://example.org", b"GET / "),
            ("//evil/x", b"GET //evil/x "),
        ):
            client.send(request("GET", target))
            await client.ends(seen)

    async def test_options_star(self) -> None:
        client = await self.connect(request("OPTIONS", "*"))
        await client.ends(b"OPTIONS * ")

    async def test_head(self) -> None:
        client = await self.connect(request("HEAD", "/x"))
        data = await client.ends(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 8\r\n", data)
        client.send(request("GET", "/y"))
        await client.ends(b"GET /y ")

    async def test_no_content(self) -> None:
        async def answer(request: Request) -> Response:
            return Response(204, b"")

        self.application.answer = answer
        client = await self.connect(request())
        self.assertNotIn(b"Content-Length", await client.ends(b"\r\n\r\n"))

    async def test_keep_alive(self) -> None:
        client = await self.connect()
        for number in range(5):
            client.send(request("GET", f"/{number}"))
            await client.ends(f"GET /{number} ".encode())
        self.assertEqual(len(self.factory.connections), 1)

    async def test_close(self) -> None:
        client = await self.connect(request("GET", "/x", None, "Connection: close") + request())
        data = await client.closed()
        self.assertIn(b"Connection: close\r\n", data)
        self.assertEqual(len(self.application.requests), 1)

    async def test_http10(self) -> None:
        client = await self.connect(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"Connection: close\r\n", await client.closed())
        client = await self.connect(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertIn(b"Connection: keep-alive\r\n", await client.ends(b"GET / "))
        client.send(request("GET", "/again"))
        await client.ends(b"GET /again ")

    async def test_upgrade_is_not_taken_up(self) -> None:
        client = await self.connect(
            request("POST", "/x", b"abc", "Connection: Upgrade", "Upgrade: h2c") + request()
        )
        data = await client.ends(b"GET /x ")
        self.assertIn(b"POST /x abc", data)

    async def test_blank_lines_before(self) -> None:
        client = await self.connect(b"\r\n\r\n" + request())
        await client.ends(b"GET /x ")

    async def test_expect(self) -> None:
        client = await self.connect()
        expecting = request("PUT", "/x", b"hello", "Expect: 100-continue")
        client.send(expecting[:-5])
        self.assertEqual(await client.ends(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.application.requests, [])
        client.send(b"hello")
        await client.ends(b"PUT /x hello")
        client.received.clear()
        client.send(expecting)  # whoever does not wait need not be told
        self.assertNotIn(b"100 Continue", await client.ends(b"PUT /x hello"))

    async def test_bad_header(self) -> None:
        async def answer(request: Request) -> Response:
            return Response(200, b"x", {"Location": "a\r\nSet-Cookie: b"})

        self.application.answer = answer
        client = await self.connect(request())
        self.assertEqual(await client.closed(), b"")
        self.assertEqual(len(self.log.lines), 1)

    async def test_proxy(self) -> None:
        import ipaddress

        self.listen(trusted_proxies=[ipaddress.ip_network("127.0.0.0/8")])
        client = await self.connect(request("GET", "/x", None, "X-Forwarded-For: 1.2.3.4"))
        await client.ends(b"GET /x ")
        self.assertEqual(self.application.requests[0].remote_address, "1.2.3.4")

    async def test_proxy_not_trusted(self) -> None:
        client = await self.connect(request("GET", "/x", None, "X-Forwarded-For: 1.2.3.4"))
        await client.ends(b"GET /x ")
        self.assertEqual(self.application.requests[0].remote_address, "127.0.0.1")

    async def test_gzip(self) -> None:
        body = json.dumps(["abc"] * 1000).encode()

        async def answer(request: Request) -> Response:
            size = 100 if request.path == "/small" else len(body)
            return Response(200, body[:size], {"Content-Type": "application/json"})

        self.application.answer = answer
        client = await self.connect()
        gzip_header = "Accept-Encoding: br, gzip;q=0.5"
        client.send(request("GET", "/large", None, gzip_header))
        await client.until(lambda: b"\r\n\r\n" in client.received)
        head, _, data = bytes(client.received).partition(b"\r\n\r\n")
        self.assertIn(b"Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\n", head)
        self.assertEqual(gzip.decompress(data), body)
        client.received.clear()
        client.send(request("GET", "/large"))
        self.assertNotIn(b"Content-Encoding", await client.ends(b"]"))
        client.received.clear()
        client.send(request("GET", "/small", None, gzip_header))
        self.assertNotIn(b"Content-Encoding", await client.ends(b"\r\n\r\n" + body[:100]))

    async def test_gzip_in_thread(self) -> None:
        self.listen(threads=real_reactor)
        body = b"abcdefgh" * 100_000

        async def answer(request: Request) -> Response:
            return Response(200, body, {"Content-Type": "text/plain"})

        self.application.answer = answer
        client = await self.connect(
            request("GET", "/x", None, "Accept-Encoding: gzip", "Connection: close")
        )
        data = (await client.closed()).partition(b"\r\n\r\n")[2]
        self.assertEqual(gzip.decompress(data), body)


class PipeliningTests(HttpTestCase):
    async def test_order(self) -> None:
        """One request at a time, answered in order, however fast the later ones are."""
        waiting: list[Deferred[None]] = []

        async def answer(request: Request) -> Response:
            if request.path == "/slow":
                waiting.append(Deferred())
                await waiting[-1]
            return Response(200, request.path.encode() + b"!" + request.body)

        self.application.answer = answer
        client = await self.connect(
            request("GET", "/slow") + request("PUT", "/second", b"body") + request("GET", "/third")
        )
        await self.eventually(lambda: bool(waiting))
        await self.later(0.02)
        self.assertEqual(len(self.application.requests), 1)
        self.assertEqual(client.received, b"")
        waiting[0].callback(None)
        data = await client.ends(b"/third!")
        self.assertLess(data.index(b"/slow!"), data.index(b"/second!body"))

    async def test_many(self) -> None:
        count = 5000
        client = await self.connect(request("GET", "/x") * count + request("GET", "/end"))
        data = await client.ends(b"GET /end ")
        self.assertEqual(data.count(b"HTTP/1.1 200 OK"), count + 1)

    async def test_reading_stops(self) -> None:
        """While a request is handled, no more than a buffer of what follows is taken in."""
        release: Deferred[None] = Deferred()

        async def answer(request: Request) -> Response:
            if not release.called:
                await release
            return Response(200, b"x")

        self.application.answer = answer
        client = await self.connect(request())
        await self.eventually(lambda: bool(self.application.requests))
        sent = request("GET", "/" + "y" * 10_000)
        client.send(sent * 2000)  # 20 MB
        await self.later(0.05)
        (connection,) = self.factory.connections
        self.assertLess(len(connection._buffer), 1_000_000)
        self.assertEqual(len(self.application.requests), 1)
        release.callback(None)
        await client.until(lambda: client.received.count(b"HTTP/1.1 200") == 2001)

    async def test_client_that_does_not_read(self) -> None:
        """Answers do not pile up for a client that sends on, but does not read."""
        self.application.answer = self._large
        client = await self.connect()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(request() * 500)
        handled = -1
        while handled != len(self.application.requests):
            handled = len(self.application.requests)
            await self.later(0.05)
        self.assertLess(handled, 400)
        client.transport.resumeProducing()  # type: ignore[union-attr]
        await client.until(lambda: client.received.count(b"HTTP/1.1 200") == 500)

    async def _large(self, request: Request) -> Response:
        return Response(200, b"x" * 50_000)


class RefusalTests(HttpTestCase):
    """Requests that are answered with an error before anything handles them."""

    async def refused(self, data: bytes) -> int:
        """The status for `data`; nothing may be handled, and the connection must end."""
        client = await self.connect(data)
        await client.ends(b"}")
        received = bytes(client.received)
        self.assertEqual(self.application.requests, [], data)
        self.assertIn(b"Connection: close\r\n", received)
        self.assertIn(b"Access-Control-Allow-Origin: *\r\n", received)
        body = json.loads(received.rpartition(b"\r\n\r\n")[2])
        self.assertEqual(set(body), {"errcode", "error"})
        client.send(request())  # what follows is not looked at
        self.pass_time(5)
        await client.closed()
        self.assertEqual(client.received, received)
        return status(received)

    async def test_smuggling(self) -> None:
        """Whatever a proxy in front might take for another request boundary."""
        smuggled = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
        for headers in (
            (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
            (b"Content-Length: 5", b"Content-Length: 5"),
            (b"Content-Length: 5", b"Content-Length: 6"),
            (b"Content-Length: 5, 5",),
            (b"Content-Length: +5",),
            (b"Content-Length: -5",),
            (b"Content-Length: 0x5",),
            (b"Content-Length: 5 5",),
            (b"Content-Length: ",),
            (b"Content-Length: 99999999999999999999999",),
            (b"Transfer-Encoding: xchunked",),
            (b"Transfer-Encoding: identity",),
            (b"Transfer-Encoding: chunked, identity",),
            (b"Transfer-Encoding: gzip, chunked",),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
            (b"Transfer-Encoding:\x0bchunked",),
            (b"Transfer-Encoding : chunked",),
            (b" Transfer-Encoding: chunked",),
            (b"X: y\r\n Transfer-Encoding: chunked",),
            (b"X: y\nTransfer-Encoding: chunked",),
            (b"X: y\rTransfer-Encoding: chunked",),
            (b"Transfer\x00-Encoding: chunked",),
            (b"Transfer-Encoding: chunked", b"Connection: Upgrade", b"Upgrade: h2c"),
            (b"Host: b",),
            (b"no colon",),
        ):
            data = b"POST / HTTP/1.1\r\nHost: a\r\n" + b"\r\n".join((*headers, b"", smuggled))
            self.assertIn(await self.refused(data), (400, 501, 413), headers)

    async def test_bad_chunks(self) -> None:
        start = request("POST", "/", None, "Transfer-Encoding: chunked")
        for chunks in (
            b"x\r\n",
            b"-1\r\n",
            b"3\nabc\n",
            b"3\r\nabcd\r\n",
            b"3 \r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b"fffffffffffffffff\r\nabc",
        ):
            self.assertEqual(await self.refused(start + chunks), 400, chunks)

    async def test_nothing_is_pipelined_behind_chunks(self) -> None:
        client = await self.connect(
            request("POST", "/", None, "Transfer-Encoding: chunked")
            + b"0\r\n\r\n"
            + request("GET", "/smuggled")
        )
        await client.closed()
        self.assertEqual([each.path for each in self.application.requests], ["/"])

    async def test_malformed(self) -> None:
        for data, expected in (
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\nHost: a\n\n", 400),
            (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (request("PUT", "/", b"x", "Expect: magic"), 417),
        ):
            self.assertIn(await self.refused(data), (expected, 505), data)

    async def test_head_limits(self) -> None:
        self.assertEqual(await self.refused(request("GET", "/" + "a" * 17_000)), 414)
        self.assertEqual(await self.refused(request("GET", "/", None, "X: " + "a" * 17_000)), 431)
        self.assertEqual(await self.refused(request("GET", "/", None, *["X: a"] * 101)), 431)
        self.assertEqual(await self.refused(b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000), 431)
        many = [f"X: {'a' * 10_000}"] * 4
        self.assertEqual(await self.refused(request("GET", "/", None, *many)), 431)

    async def test_body_limit(self) -> None:
        """Refused before the body is sent if its length is known, else when it is too much."""
        self.application.plan = BodyPlan(10, stream=False)
        announced = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n"
        self.assertEqual(await self.refused(announced + b"\r\n"), 413)
        self.assertEqual(await self.refused(announced + b"Expect: 100-continue\r\n\r\n"), 413)
        chunked = request("PUT", "/", None, "Transfer-Encoding: chunked")
        self.assertEqual(await self.refused(chunked + b"b\r\n01234567890\r\n"), 413)
        client = await self.connect(request("PUT", "/", b"0123456789"))
        await client.ends(b"0123456789")


class TimeoutTests(HttpTestCase):
    async def test_idle(self) -> None:
        client = await self.connect(request())
        await client.ends(b"GET /x ")
        self.pass_time(int(HttpLimits().idle_seconds) - 1)
        await self.later(0.02)
        self.assertFalse(client.is_closed)
        self.pass_time(2)
        self.assertNotIn(b"408", await client.closed())

    async def test_never_speaks(self) -> None:
        client = await self.connect()
        await self.eventually(lambda: bool(self.factory.connections))
        self.pass_time(int(HttpLimits().idle_seconds) + 1)
        self.assertEqual(await client.closed(), b"")

    async def test_slow_head(self) -> None:
        """Slow loris: a byte now and then does not keep a connection."""
        client = await self.connect(b"GET / HTTP/1.1\r\n")
        await self.eventually(lambda: any(each._buffer for each in self.factory.connections))
        (connection,) = self.factory.connections
        for _ in range(29):
            size = len(connection._buffer)
            client.send(b"X")
            await self.eventually(lambda: len(connection._buffer) > size)  # noqa: B023
            self.pass_time(1)
        self.assertEqual(client.received, b"")
        self.pass_time(2)
        self.assertEqual(status(await client.ends(b"}")), 408)
        self.pass_time(5)
        await client.closed()
        self.assertEqual(self.application.requests, [])

    async def test_slow_body(self) -> None:
        client = await self.connect(request("PUT", "/", b"x" * 10)[:-9])
        await self.eventually(lambda: any(each._body for each in self.factory.connections))
        self.pass_time(60)
        client.send(b"x")
        await self.eventually(
            lambda: any(len(each._body or b"") == 2 for each in self.factory.connections)
        )
        self.assertEqual(client.received, b"")
        self.pass_time(62)
        self.assertEqual(status(await client.ends(b"}")), 408)
        self.assertEqual(self.application.requests, [])

    async def test_long_poll_has_no_timeout(self) -> None:
        release: Deferred[None] = Deferred()

        async def answer(request: Request) -> Response:
            await release
            return Response(200, b"done")

        self.application.answer = answer
        client = await self.connect(request())
        await self.eventually(lambda: bool(self.application.requests))
        self.pass_time(3600)
        release.callback(None)
        await client.ends(b"done")

    async def test_client_that_stops_reading(self) -> None:
        async def answer(request: Request) -> Response:
            return Response(200, b"x" * 20_000_000)

        self.application.answer = answer
        client = await self.connect()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(request())
        await self.eventually(lambda: any(each._write_paused for each in self.factory.connections))
        await self.later(0.05)
        self.pass_time(int(HttpLimits().write_seconds) + 1)
        await self.eventually(lambda: not self.factory.connections)
        self.assertEqual(self.factory.running, 0)
        self.assertEqual(self.log.lines, [])


class LargeResponseTests(HttpTestCase):
    async def test_back_pressure(self) -> None:
        """A large answer is handed over as the client takes it."""
        body = bytes(range(256)) * 80_000

        async def answer(request: Request) -> Response:
            return Response(200, body)

        self.application.answer = answer
        client = await self.connect()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(request() + request("GET", "/second"))
        await self.eventually(lambda: any(each._write_paused for each in self.factory.connections))
        await self.later(0.05)
        (connection,) = self.factory.connections
        waiting = connection.transport.dataBuffer, connection.transport._tempDataBuffer
        self.assertLess(len(waiting[0]) + sum(map(len, waiting[1])), 1_000_000)
        self.assertEqual(len(self.application.requests), 1)
        client.transport.resumeProducing()  # type: ignore[union-attr]
        await client.until(lambda: len(client.received) > 2 * len(body))
        self.assertTrue(client.received.endswith(body))

    async def test_stream(self) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            yield b""
            yield b"defg"

        async def answer(request: Request) -> Response:
            headers = {"Content-Length": "7"} if request.path == "/known" else {}
            return Response(200, chunks(), headers)

        self.application.answer = answer
        client = await self.connect(request())
        data = await client.ends(b"\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        self.assertIn(b"Transfer-Encoding: chunked\r\n", data)
        client.send(request("GET", "/known"))
        data = await client.ends(b"\r\n\r\nabcdefg")
        self.assertIn(b"Content-Length: 7\r\n", data)
        client.received.clear()
        client.send(request("HEAD", "/known"))
        self.assertIn(b"Content-Length: 7\r\n", await client.ends(b"\r\n\r\n"))
        old = await self.connect(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        data = await old.closed()
        self.assertTrue(data.endswith(b"Connection: close\r\n\r\nabcdefg"))

    async def test_stream_back_pressure(self) -> None:
        produced = 0
        ended: list[bool] = []

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal produced
            try:
                for _ in range(2000):
                    produced += 1
                    yield b"x" * 10_000
            finally:
                ended.append(True)

        async def answer(request: Request) -> Response:
            return Response(200, chunks())

        self.application.answer = answer
        client = await self.connect()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(request())
        await self.eventually(lambda: any(each._write_paused for each in self.factory.connections))
        before = -1
        while before != produced:
            before = produced
            await self.later(0.05)
        self.assertLess(produced, 1900)
        client.transport.abortConnection()  # type: ignore[union-attr]
        await self.eventually(lambda: bool(ended))
        self.assertEqual((self.factory.running, self.log.lines), (0, []))

    async def test_stream_that_fails(self) -> None:
        """The client must not take a part for the whole."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            raise RuntimeError("disk gone")

        async def short() -> AsyncIterator[bytes]:
            yield b"abc"

        for body, headers in ((chunks(), {}), (short(), {"Content-Length": "4"})):

            async def answer(
                request: Request,
                body: AsyncIterator[bytes] = body,
                headers: dict[str, str] = headers,
            ) -> Response:
                return Response(200, body, headers)

            self.application.answer = answer
            client = await self.connect(request())
            data = await client.closed()
            self.assertFalse(data.endswith(b"0\r\n\r\n"))
        self.assertEqual(len(self.log.lines), 2)


class UploadTests(HttpTestCase):
    """Bodies that the handler reads itself."""

    def setUp(self) -> None:
        super().setUp()
        self.application.plan = BodyPlan(10_000_000, stream=True)
        self.application.answer = self.count
        self.errors: list[MatrixError] = []

    async def count(self, request: Request) -> Response:
        assert request.body_stream is not None
        size = 0
        try:
            async for chunk in request.body_stream:
                size += len(chunk)
        except MatrixError as error:
            self.errors.append(error)
            return error_response(error)
        return Response(200, b"%d bytes" % size)

    async def test_upload(self) -> None:
        client = await self.connect(request("POST", "/x", b"x" * 5_000_000))
        await client.ends(b"5000000 bytes")
        client.send(request("POST", "/x", b"abc"))
        await client.ends(b"\r\n3 bytes")
        client.send(request("POST", "/x"))
        await client.ends(b"\r\n0 bytes")
        client.send(
            request("POST", "/x", None, "Transfer-Encoding: chunked") + b"4\r\nabcd\r\n0\r\n\r\n"
        )
        await client.ends(b"\r\n4 bytes")

    async def test_expect(self) -> None:
        """A client that waits is told to go on when the handler wants the body, not before."""
        release: Deferred[None] = Deferred()

        async def answer(request: Request) -> Response:
            await release
            return await self.count(request)

        self.application.answer = answer
        client = await self.connect(request("POST", "/x", b"abc", "Expect: 100-continue")[:-3])
        await self.eventually(lambda: bool(self.application.requests))
        await self.later(0.02)
        self.assertEqual(client.received, b"")
        release.callback(None)
        await client.ends(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"abc")
        await client.ends(b"3 bytes")

    async def test_refused_early(self) -> None:
        """The answer arrives though the client is still sending."""

        async def answer(request: Request) -> Response:
            return error_response(forbidden())

        self.application.answer = answer
        client = await self.connect(request("POST", "/x", b"x" * 5_000_000))
        data = await client.ends(b"}")
        self.assertEqual(status(data), 403)
        self.assertIn(b"Connection: close\r\n", data)
        await self.later(0.05)
        self.pass_time(5)
        await client.closed()
        self.assertEqual(len(self.application.requests), 1)

    async def test_back_pressure(self) -> None:
        release: Deferred[None] = Deferred()

        async def answer(request: Request) -> Response:
            await release
            return await self.count(request)

        self.application.answer = answer
        client = await self.connect(request("POST", "/x", b"x" * 9_000_000))
        await self.eventually(lambda: bool(self.application.requests))
        await self.later(0.05)
        (connection,) = self.factory.connections
        assert connection._stream is not None
        self.assertLess(connection._stream._size, 500_000)
        self.pass_time(600)  # the handler may take its time
        release.callback(None)
        await client.ends(b"9000000 bytes")

    async def test_too_large(self) -> None:
        self.application.plan = BodyPlan(1000, stream=True)
        client = await self.connect(request("POST", "/x", None, "Transfer-Encoding: chunked"))
        client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.assertEqual(status(await client.ends(b"}")), 413)
        self.pass_time(5)
        await client.closed()

    async def test_malformed(self) -> None:
        client = await self.connect(request("POST", "/x", None, "Transfer-Encoding: chunked"))
        client.send(b"1\r\nx\r\nnonsense\r\n")
        self.assertEqual(status(await client.ends(b"}")), 400)

    async def test_stops_arriving(self) -> None:
        client = await self.connect(request("POST", "/x", b"abc")[:-1])
        await self.eventually(lambda: bool(self.application.requests))
        self.pass_time(int(HttpLimits().stream_seconds) + 1)
        self.assertEqual(status(await client.ends(b"}")), 408)

    async def test_disconnected(self) -> None:
        client = await self.connect(request("POST", "/x", b"abc")[:-1])
        await self.eventually(lambda: bool(self.application.requests))
        client.transport.abortConnection()  # type: ignore[union-attr]
        await self.eventually(lambda: bool(self.errors))
        self.assertEqual((self.errors[0].status, self.log.lines), (499, []))


class WaitingTests(HttpTestCase):
    """Clients that go away, and a server that does."""

    def setUp(self) -> None:
        super().setUp()
        self.release: Deferred[None] = Deferred()
        self.outcome: list[str] = []
        self.long_poll = True
        self.application.answer = self.wait

    async def wait(self, request: Request) -> Response:
        request.is_cancellable = self.long_poll
        request.on_disconnect(lambda: self.outcome.append("disconnected"))
        try:
            await self.release
        except CancelledError:
            self.outcome.append("cancelled")
            raise
        self.outcome.append("finished")
        return Response(200, b"done")

    async def waiting(self) -> RawClient:
        client = await self.connect(request())
        await self.eventually(lambda: bool(self.application.requests))
        return client

    async def test_long_poll_is_cancelled(self) -> None:
        client = await self.waiting()
        client.transport.loseConnection()  # type: ignore[union-attr]
        await self.eventually(lambda: len(self.outcome) == 2)
        self.assertEqual(self.outcome, ["disconnected", "cancelled"])
        self.assertEqual((self.factory.running, self.log.lines), (0, []))

    async def test_others_finish(self) -> None:
        self.long_poll = False
        client = await self.waiting()
        client.transport.loseConnection()  # type: ignore[union-attr]
        await self.eventually(lambda: bool(self.outcome))
        self.release.callback(None)
        self.assertEqual(self.outcome, ["disconnected", "finished"])
        self.assertEqual((self.factory.running, self.log.lines), (0, []))

    async def test_stop_idle(self) -> None:
        client = await self.connect()
        await self.eventually(lambda: bool(self.factory.connections))
        stopped = self.factory.stop()
        await client.closed()
        self.clock.advance(0.1)
        await stopped

    async def test_stop_long_poll(self) -> None:
        client = await self.waiting()
        stopped = self.factory.stop()
        data = await client.closed()
        self.assertEqual(status(data), 503)
        self.assertIn(b"Retry-After: 1\r\n", data)
        self.assertEqual(self.outcome, ["cancelled"])
        self.clock.advance(0.1)
        await stopped

    async def test_stop_long_poll_early_answer(self) -> None:
        """A handler that asked to be told answers with what it has, in its own time."""

        async def answer(request: Request) -> Response:
            request.is_cancellable = True
            request.on_shutdown(lambda: self.outcome.append("told"))
            await self.release
            return Response(200, b"what there is")

        self.application.answer = answer
        client = await self.waiting()
        stopped = self.factory.stop()
        self.clock.pump([0.1] * 10)
        self.assertEqual(self.outcome, ["told"])
        self.release.callback(None)
        data = await client.closed()
        self.assertTrue(data.endswith(b"Connection: close\r\n\r\nwhat there is"), data)
        self.clock.advance(0.1)
        await stopped

    async def test_stop_running(self) -> None:
        self.long_poll = False
        client = await self.waiting()
        stopped = self.factory.stop()
        self.clock.pump([0.1] * 10)
        self.assertFalse(stopped.called)
        self.release.callback(None)
        data = await client.closed()
        self.assertTrue(data.endswith(b"Connection: close\r\n\r\ndone"), data)
        self.clock.advance(0.1)
        await stopped

    async def test_stop_time_limit(self) -> None:
        self.long_poll = False
        client = await self.waiting()
        stopped = self.factory.stop(5)
        self.clock.pump([0.1] * 60)
        await stopped
        self.assertEqual(await client.closed(), b"")
        self.release.callback(None)

    async def test_no_new_connections(self) -> None:
        await self.factory.stop()
        client = await self.connect(request())
        self.assertEqual(await client.closed(), b"")


class MemoryTests(HttpTestCase):
    async def test_idle_connection_keeps_nothing(self) -> None:
        client = await self.connect(request("PUT", "/x", b"abc"))
        await client.ends(b"abc")
        (connection,) = self.factory.connections
        self.assertFalse(hasattr(connection, "__dict__"))
        for name in ("_head", "_body", "_plan", "_request", "_stream", "_deferred", "_drained"):
            self.assertIsNone(getattr(connection, name), name)
        self.assertEqual(connection._buffer, b"")

    async def test_parser_is_gone_while_waiting(self) -> None:
        async def answer(request: Request) -> Response:
            (connection,) = self.factory.connections
            self.assertIsNone(connection._head)
            return Response(200, b"ok")

        self.application.answer = answer
        client = await self.connect(request("PUT", "/x", b"abc"))
        await client.ends(b"ok")


class RouterTests(HttpTestCase):
    """A router behind sockets."""

    async def test_endpoints(self) -> None:
        sample = Sample(clock=Clock())
        self.application = sample.router  # type: ignore[assignment]
        self.listen()
        client = await self.connect(request("POST", f"{BASE}/echo", b'{"name":"x"}'))
        data = await client.ends(b'{"name":"x","user":null}')
        self.assertIn(b"Content-Type: application/json\r\n", data)
        self.assertIn(b"Access-Control-Allow-Origin: *\r\n", data)
        client.send(request("POST", f"{BASE}/upload", b"x" * 99_000))
        await client.ends(b'{"size":99000}')
        client.received.clear()
        client.send(request("POST", f"{BASE}/upload", b"x" * 100_001))
        self.assertEqual(status(await client.ends(b"}")), 413)


class TlsTests(HttpTestCase):
    async def test_large_both_ways(self) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        certificate = PrivateCertificate.loadPEM(
            issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
        )
        self.listen(lambda http: TLSMemoryBIOFactory(certificate.options(), False, http))
        trusted = trustRootFromCertificates([Certificate.loadPEM(authority.cert_pem.bytes())])
        client: RawClient = await connectProtocol(
            wrapClientTLS(
                optionsForClientTLS("localhost", trusted),
                TCP4ClientEndpoint(real_reactor, "127.0.0.1", self.port.getHost().port),
            ),
            RawClient(),
        )
        self.clients.append(client)
        self.application.plan = BodyPlan(10_000_000, stream=False)
        body = bytes(range(256)) * 20_000
        client.send(request("PUT", "/x", body) + request("GET", "/y", None, "Connection: close"))
        data = await client.closed()
        self.assertIn(b"PUT /x " + body, data)
        self.assertTrue(data.endswith(b"GET /y "))
