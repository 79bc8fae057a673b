"""The HTTP protocol over real sockets: requests and their answers."""

from __future__ import annotations

import gzip
import json

import trustme
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory

from homeserver.web.request import BodyPlan, Request
from homeserver.web.responses import Response
from tests.homeserver.web.raw_http import HttpTestCase, RawClient, real_reactor, request, status
from tests.homeserver.web.sample import BASE, Sample


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


class MemoryTests(HttpTestCase):
    async def test_idle_connection_keeps_nothing(self) -> None:
        client = await self.connect(request("PUT", "/x", b"abc"))
        await client.ends(b"abc")
        (connection,) = self.factory.connections
        self.assertFalse(hasattr(connection, "__dict__"))
        for name in ("_head", "_body", "_plan", "_request", "_stream", "_handling", "_drained"):
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
