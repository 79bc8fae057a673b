"""Compressed answers over sockets."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import zstandard

from homeserver.web.content_coding import CompressedStream
from homeserver.web.request import Request
from homeserver.web.responses import Response
from tests.homeserver.web.raw_http import HttpTestCase, real_reactor, request

TEXT = b"".join(b'{"event_id":"$%d"}\n' % (number * 7919) for number in range(3000))
ZSTD = "Accept-Encoding: gzip, deflate, br, zstd"
GZIP = "Accept-Encoding: gzip"


def unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def unchunked(data: bytes) -> bytes:
    found = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if not int(size, 16):
            return found
        found, data = found + data[: int(size, 16)], data[int(size, 16) + 2 :]


class CodingTests(HttpTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.headers = {"Content-Type": "application/json"}
        self.application.answer = self.whole

    async def whole(self, request: Request) -> Response:
        return Response(200, TEXT, dict(self.headers))

    async def streamed(self, request: Request) -> Response:
        return Response(200, self.parts(), dict(self.headers))

    async def parts(self) -> AsyncIterator[bytes]:
        for start in range(0, len(TEXT), 10_000):
            await self.later(0)
            yield TEXT[start : start + 10_000]

    async def ask(self, *headers: str, method: str = "GET", version: str = "1.1") -> list[bytes]:
        """Head and body of an answer."""
        sent = request(method, "/x", None, "Connection: close", *headers, version=version)
        client = await self.connect(sent)
        head, _, body = (await client.closed()).partition(b"\r\n\r\n")
        return [head, body]

    async def test_zstd(self) -> None:
        head, body = await self.ask(ZSTD)
        self.assertIn(b"Content-Encoding: zstd\r\n", head)
        self.assertIn(b"Vary: Accept-Encoding\r\n", head)
        self.assertIn(b"Content-Length: %d\r\n" % len(body), head)
        self.assertEqual(unzstd(body), TEXT)

    async def test_in_thread(self) -> None:
        self.listen(threads=real_reactor)
        large = TEXT * 10

        async def answer(request: Request) -> Response:
            return Response(200, large, dict(self.headers))

        self.application.answer = answer
        head, body = await self.ask(ZSTD)
        self.assertIn(b"Content-Encoding: zstd\r\n", head)
        self.assertEqual(unzstd(body), large)
        head, body = await self.ask(ZSTD, method="HEAD")
        self.assertIn(b"Content-Encoding: zstd\r\n", head)
        self.assertEqual(body, b"")

    async def test_as_it_is(self) -> None:
        """For those who do not take it; and caches are told that others do."""
        for header in ("Accept: x", "Accept-Encoding: br", "Accept-Encoding: gzip;q=0"):
            head, body = await self.ask(header)
            self.assertNotIn(b"Content-Encoding", head)
            self.assertIn(b"Vary: Accept-Encoding\r\n", head)
            self.assertEqual(body, TEXT)

    async def test_head(self) -> None:
        """The head says what it says for GET."""
        got, _ = await self.ask(GZIP)
        asked, body = await self.ask(GZIP, method="HEAD")
        self.assertEqual((asked, body), (got, b""))

    async def test_streams(self) -> None:
        self.application.answer = self.streamed
        for header, coding in ((ZSTD, b"zstd"), (GZIP, b"gzip")):
            self.headers["Content-Length"] = str(len(TEXT))
            head, body = await self.ask(header)
            self.assertIn(b"Content-Encoding: " + coding, head)
            self.assertIn(b"Transfer-Encoding: chunked\r\n", head)
            self.assertNotIn(b"Content-Length", head)
            data = unchunked(body)
            self.assertEqual(unzstd(data) if coding == b"zstd" else gzip.decompress(data), TEXT)
            self.assertLess(len(data), len(TEXT) / 2)
            asked, body = await self.ask(header, method="HEAD")
            self.assertIn(b"Content-Encoding: " + coding, asked)
            self.assertNotIn(b"Content-Length", asked)
            self.assertEqual(body, b"")
        self.assertEqual(CompressedStream.running, 0)

    async def test_stream_to_an_old_client(self) -> None:
        """Without chunks the end of the connection ends the body."""
        self.application.answer = self.streamed
        head, body = await self.ask(GZIP, version="1.0")
        self.assertNotIn(b"Transfer-Encoding", head)
        self.assertEqual(gzip.decompress(body), TEXT)

    async def test_streams_that_are_left_alone(self) -> None:
        self.application.answer = self.streamed
        self.headers["Content-Length"] = str(len(TEXT))
        for more in ({"ETag": '"x"'}, {"Content-Type": "image/png"}, {"Content-Range": "bytes"}):
            self.headers |= more
            head, body = await self.ask(ZSTD)
            self.assertNotIn(b"Content-Encoding", head)
            self.assertEqual(body, TEXT)
            self.headers = {"Content-Type": "text/plain", "Content-Length": str(len(TEXT))}

    async def test_a_client_that_goes_away(self) -> None:
        ended: list[bool] = []

        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    await self.later(0)
                    yield TEXT
            finally:
                ended.append(True)

        async def answer(request: Request) -> Response:
            return Response(200, endless(), dict(self.headers))

        self.application.answer = answer
        client = await self.connect(request("GET", "/x", None, ZSTD))
        await client.until(lambda: len(client.received) > 1000)
        client.transport.abortConnection()  # type: ignore[union-attr]
        await self.eventually(lambda: bool(ended))
        self.assertEqual((CompressedStream.running, self.log.lines), (0, []))
