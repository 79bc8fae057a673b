from __future__ import annotations

import gzip as stdlib_gzip

from twisted.trial.unittest import SynchronousTestCase

from homeserver.web.http_output import accepts_gzip, chunk, gzip, may_compress, render_head
from homeserver.web.request import Request
from homeserver.web.responses import Response


class HeadTests(SynchronousTestCase):
    def test_head(self) -> None:
        response = Response(404, b"", {"X": "ë"})
        head = render_head(response, 3, chunked=False, connection="close", now=784111777.9)
        self.assertEqual(
            head,
            b"HTTP/1.1 404 Not Found\r\nX: \xc3\xab\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
            b"Content-Length: 3\r\nConnection: close\r\n\r\n",
        )

    def test_line_breaks(self) -> None:
        for name, value in (("X", "a\r\nb"), ("X", "a\nb"), ("X\r\nY", "a"), ("X", "a\0")):
            with self.assertRaises(ValueError):
                render_head(
                    Response(200, b"", {name: value}), 0, chunked=False, connection=None, now=0
                )

    def test_unknown_status(self) -> None:
        head = render_head(Response(499, b""), 0, chunked=False, connection=None, now=0)
        self.assertTrue(head.startswith(b"HTTP/1.1 499 Unknown\r\n"))


class CompressionTests(SynchronousTestCase):
    def test_accepts(self) -> None:
        for header, expected in (
            (b"gzip", True),
            (b"br, GZIP", True),
            (b"gzip;q=0.1", True),
            (b"gzip; q=1.0, deflate", True),
            (b"gzip;q=0", False),
            (b"gzip; q=0.000", False),
            (b"deflate", False),
            (b"xgzip", False),
            (b"", False),
        ):
            self.assertEqual(accepts_gzip(header), expected, header)

    def test_what_is_worth_it(self) -> None:
        request = Request("GET", "/", {b"accept-encoding": b"gzip"})
        for kind, size, extra, expected in (
            ("application/json", 4096, {}, True),
            ("application/json", 4095, {}, False),
            ("text/html; charset=utf-8", 9999, {}, True),
            ("image/png", 9999, {}, False),
            ("application/json", 9999, {"content-encoding": "br"}, False),
        ):
            response = Response(200, b"", {"content-type": kind, **extra})
            self.assertEqual(may_compress(request, response, size), expected, (kind, size))
        self.assertFalse(may_compress(request, Response(200, b""), 9999))

    def test_gzip(self) -> None:
        self.assertEqual(stdlib_gzip.decompress(gzip(b"abc" * 1000)), b"abc" * 1000)

    def test_chunk(self) -> None:
        self.assertEqual(chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")
