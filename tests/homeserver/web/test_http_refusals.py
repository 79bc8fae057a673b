"""What the HTTP protocol refuses."""

from __future__ import annotations

import json

from homeserver.web.request import BodyPlan
from tests.homeserver.web.raw_http import HttpTestCase, request, status


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
