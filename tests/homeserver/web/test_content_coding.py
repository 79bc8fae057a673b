"""Which answers are compressed, for whom, and how."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import zstandard
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase, TestCase

from homeserver.web import content_coding
from homeserver.web.content_coding import (
    CompressedStream,
    accepted,
    compress,
    compress_in_thread,
    may_vary,
    negotiated,
)
from homeserver.web.request import Request
from homeserver.web.responses import Response

TEXT = b"".join(b'{"event_id":"$%d"}' % (number * 7919) for number in range(3000))


def decoded(coding: str, data: bytes) -> bytes:
    if coding == "gzip":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


class NegotiationTests(SynchronousTestCase):
    """RFC 9110, "Accept-Encoding"."""

    def test_what_is_accepted(self) -> None:
        for header, expected in (
            (b"gzip", "gzip"),
            (b"br, GZIP", "gzip"),
            (b"x-gzip", "gzip"),
            (b"zstd", "zstd"),
            (b"gzip, deflate, br, zstd", "zstd"),
            (b"gzip;q=1.0, zstd;q=0.9", "gzip"),
            (b"gzip;q=0.8,zstd;q=0.8", "zstd"),
            (b"gzip;q=0.1", "gzip"),
            (b"gzip ; q=0.5", "gzip"),
            (b"gzip;Q=0.5", "gzip"),
            (b"gzip; q=1.000, deflate", "gzip"),
            (b"*", "zstd"),
            (b"*;q=0.1", "zstd"),
            (b"zstd;q=0, *", "gzip"),
            (b"identity, gzip;q=0.5", None),
            (b"identity;q=0.5, gzip;q=0.5", "gzip"),
            (b"identity;q=0", None),
            (b"identity;q=0, gzip", "gzip"),
            (b"gzip;q=0", None),
            (b"gzip;q=0.000", None),
            (b"gzip;q=0, *;q=0", None),
            (b"*;q=0", None),
            (b"deflate, br", None),
            (b"xgzip", None),
            (b"gzip-2", None),
            (b"", None),
            (b",,gzip,", "gzip"),
            # What is malformed is not accepted.
            (b"gzip;q=", None),
            (b"gzip;q=2", None),
            (b"gzip;q=-1", None),
            (b"gzip;q=0.1234", None),
            (b"gzip;q=nan", None),
            (b"gzip;level=9", None),
            (b"gzip;q=1;q=0", None),
            # The first of two that are the same.
            (b"gzip;q=0, gzip", None),
        ):
            self.assertEqual(accepted(header), expected, header)
        self.assertIsNone(accepted(None))

    def test_long_headers_are_not_remembered(self) -> None:
        before = content_coding._remembered.cache_info().currsize
        for number in range(20):
            header = b"gzip, " + b", ".join(b"x%d" % (number + each) for each in range(500))
            self.assertEqual(accepted(header), "gzip")
        self.assertEqual(content_coding._remembered.cache_info().currsize, before)

    @given(st.binary(max_size=60))
    def test_any_header(self, header: bytes) -> None:
        self.assertIn(accepted(header), (None, "gzip", "zstd"))

    def test_what_is_worth_it(self) -> None:
        for kind, size, extra, expected in (
            ("application/json", 4096, {}, True),
            ("application/json", None, {}, True),
            ("application/json", 4095, {}, False),
            ("text/html; charset=utf-8", 9999, {}, True),
            ("image/svg+xml", 9999, {}, True),
            ("image/png", 9999, {}, False),
            ("application/json", 9999, {"content-encoding": "br"}, False),
            ("text/plain", 9999, {"Content-Range": "bytes 0-9998/20000"}, False),
            ("text/plain", 9999, {"ETag": '"abc"'}, False),
            ("text/plain", 9999, {"ETag": 'W/"abc"'}, True),
            ("text/plain", 9999, {"Cache-Control": "private, no-transform"}, False),
            ("text/plain", 9999, {"Cache-Control": "private"}, True),
        ):
            response = Response(200, b"", {"Content-Type": kind, **extra})
            self.assertEqual(may_vary(response, size), expected, (kind, size, extra))
        self.assertFalse(may_vary(Response(200, b""), 9999))

    def test_vary(self) -> None:
        """It is said of every answer that might have been another."""
        taking = Request("GET", "/", {b"accept-encoding": b"gzip"})
        for request, coding in ((taking, "gzip"), (Request("GET", "/"), None)):
            for before, after in (
                ({}, "Accept-Encoding"),
                ({"vary": "Origin"}, "Origin, Accept-Encoding"),
                ({"Vary": "accept-encoding"}, "accept-encoding"),
                ({"Vary": "*"}, "*"),
            ):
                first = Response(200, b"", {"Content-Type": "text/plain", **before})
                response, chosen = negotiated(request, first, 9999)
                self.assertEqual(chosen, coding)
                self.assertEqual(response.header("vary"), after)
                self.assertEqual(response.header("content-encoding"), coding)
                self.assertEqual([name.lower() for name in response.headers].count("vary"), 1)
                # The answer may be one that others get too.
                self.assertNotIn("Content-Encoding", first.headers)
        small, chosen = negotiated(taking, Response(200, b"", {"Content-Type": "text/plain"}), 9)
        self.assertEqual((small.header("vary"), chosen), (None, None))


class CompressingTests(TestCase):
    def test_whole(self) -> None:
        for coding in ("gzip", "zstd"):
            for function in (compress, compress_in_thread):
                for data in (TEXT, b"", b"x"):
                    made = function(coding, data)
                    self.assertEqual(decoded(coding, made), data)
                self.assertLess(len(function(coding, TEXT)), len(TEXT) / 2)

    async def test_stream(self) -> None:
        for coding in ("gzip", "zstd"):
            for size in (1, 700, 100_000):
                ended: list[bool] = []
                stream = CompressedStream(coding, self.parts(TEXT[:5000], size, ended))
                self.assertEqual(CompressedStream.running, 1)
                made = b"".join([part async for part in stream])
                self.assertEqual(decoded(coding, made), TEXT[:5000])
                await stream.aclose()
                self.assertEqual((CompressedStream.running, ended), (0, [True]))
                with self.assertRaises(StopAsyncIteration):
                    await stream.__anext__()

    async def test_stream_is_not_gathered(self) -> None:
        """A long body comes out while it goes in."""
        taken = 0

        async def parts() -> AsyncIterator[bytes]:
            nonlocal taken
            for _ in range(1000):
                taken += 1
                yield TEXT

        for coding in ("gzip", "zstd"):
            stream = CompressedStream(coding, parts())
            taken = 0
            await stream.__anext__()
            self.assertLess(taken, 100, coding)
            await stream.aclose()
            self.assertEqual(CompressedStream.running, 0)

    async def test_streams_are_counted(self) -> None:
        self.patch(content_coding, "MAX_STREAMS", 1)
        self.assertTrue(CompressedStream.is_possible())
        ended: list[bool] = []
        stream = CompressedStream("zstd", self.parts(b"abc", 1, ended))
        self.assertFalse(CompressedStream.is_possible())
        await stream.aclose()
        await stream.aclose()
        self.assertTrue(CompressedStream.is_possible())
        self.assertEqual(CompressedStream.running, 0)

    async def test_a_stream_that_fails(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"abc"
            raise RuntimeError("disk gone")

        stream = CompressedStream("gzip", parts())
        with self.assertRaises(RuntimeError):
            async for _ in stream:
                pass
        await stream.aclose()
        self.assertEqual(CompressedStream.running, 0)

    async def parts(self, data: bytes, size: int, ended: list[bool]) -> AsyncIterator[bytes]:
        try:
            for start in range(0, len(data), size):
                yield data[start : start + size]
        finally:
            ended.append(True)
