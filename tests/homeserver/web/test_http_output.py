from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.web.http_output import chunk, render_head
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


class ChunkTests(SynchronousTestCase):
    def test_chunk(self) -> None:
        self.assertEqual(chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")
