"""Large and streamed bodies of both directions, with back-pressure."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred

from homeserver.core.errors import MatrixError, forbidden
from homeserver.web.http import HttpLimits
from homeserver.web.request import BodyPlan, Request
from homeserver.web.responses import Response, error_response
from tests.homeserver.web.raw_http import HttpTestCase, request, status


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
