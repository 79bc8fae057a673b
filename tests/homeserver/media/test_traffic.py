"""Uploads and downloads over real connections, with clients that do not behave."""

from __future__ import annotations

import os
import re

from twisted.internet.task import Clock

from homeserver.web.http import HttpFactory
from storage.database import sleep
from tests.homeserver.web.raw_http import HttpTestCase, RawClient, real_reactor
from tests.support.media import DOWNLOAD, UPLOAD, download, stored_files, upload
from tests.support.network import eventually
from tests.support.server import TestServer, User, make_server


class TrafficTests(HttpTestCase):
    """The time of the connections is `self.clock`."""

    server: TestServer
    alice: User

    async def start(self, **media: object) -> None:
        self.server = await make_server(self, media=media)
        self.alice = await self.server.register()
        self.clock = Clock()
        self.factory = HttpFactory(
            self.server.homeserver.router, clock=self.clock, log=self.log.logger
        )
        self.port = real_reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(self._clean_up, self.port, self.factory)

    def head(self, method: str, path: str, *lines: str) -> bytes:
        given = [f"{method} {path} HTTP/1.1", "Host: hearth.test", *lines]
        given.append(f"Authorization: Bearer {self.alice.token}")
        return "\r\n".join([*given, "", ""]).encode()

    async def answer(self, client: RawClient, status: int, errcode: str = "") -> bytes:
        data = await client.until(lambda: b"\r\n\r\n" in client.received)
        self.assertEqual(int(data.split(b" ")[1]), status, data)
        if errcode:
            data = await client.until(lambda: client.received.endswith(b"}"))
            self.assertIn(errcode.encode(), data)
        return data

    async def nothing_is_left(self) -> None:
        await eventually(lambda: not stored_files(self.server))

    async def test_chunks(self) -> None:
        """A file without a length, and one that waits to be asked for. Shows MED-1."""
        await self.start()
        client = await self.connect(self.head("POST", UPLOAD, "Transfer-Encoding: chunked"))
        for _ in range(50):
            client.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        client.send(b"0\r\n\r\n")
        data = await self.answer(client, 200)
        data = await client.until(lambda: client.received.endswith(b"}"))
        found = re.search(rb"mxc://([^\"]+)", data)
        assert found is not None
        got = await download(self.alice, found[1].decode())
        self.assertEqual(got.body, b"x" * 500_000)
        lines = ("Content-Length: 5", "Expect: 100-continue")
        client = await self.connect(self.head("POST", UPLOAD, *lines))
        await client.until(lambda: b"100 Continue" in client.received)
        client.send(b"hello")
        await client.until(lambda: b"content_uri" in client.received)

    async def test_endless(self) -> None:
        """Chunks without end are refused where the limit is passed. Shows MED-1."""
        await self.start(max_upload_size=1_000_000)
        client = await self.connect(self.head("POST", UPLOAD, "Transfer-Encoding: chunked"))
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        sent = 0
        while not client.received:
            client.send(chunk)
            sent += len(chunk)
            await sleep(real_reactor, 0)
            self.assertLess(sent, 100_000_000)
        await self.answer(client, 413, "M_TOO_LARGE")
        await self.nothing_is_left()

    async def test_announced_too_large(self) -> None:
        """Shows MED-1."""
        await self.start(max_upload_size=1000)
        client = await self.connect(self.head("POST", UPLOAD, "Content-Length: 1001"))
        await self.answer(client, 413, "M_TOO_LARGE")
        await self.nothing_is_left()

    async def test_cut_off(self) -> None:
        """Of a file that breaks off nothing stays, and no name."""
        await self.start()
        for lines in ("Content-Length: 900000", "Transfer-Encoding: chunked"):
            client = await self.connect(self.head("POST", UPLOAD, lines))
            client.send((b"" if lines.startswith("C") else b"a0000\r\n") + b"x" * 600_000)
            await eventually(lambda: len(stored_files(self.server)) == 1)
            transport = client.transport
            assert transport is not None
            transport.abortConnection()  # type: ignore[attr-defined]
            await self.nothing_is_left()
        used = await self.server.homeserver.db.read(lambda txn: txn.one("SELECT 1 FROM media"))
        self.assertIsNone(used)

    async def test_stopping(self) -> None:
        """A file that stops coming is given up."""
        await self.start()
        client = await self.connect(self.head("POST", UPLOAD, "Content-Length: 900000"))
        client.send(b"x" * 600_000)
        await eventually(lambda: len(stored_files(self.server)) == 1)
        self.clock.pump([1.0] * 62)
        await self.answer(client, 408)
        await self.nothing_is_left()

    async def test_slow_reader(self) -> None:
        """Of a file no more is read than the client takes."""
        await self.start()
        name = await upload(self.alice, bytes(40_000_000))
        client = await self.connect()
        transport = client.transport
        assert transport is not None
        transport.pauseProducing()  # type: ignore[attr-defined]
        client.send(self.head("GET", f"{DOWNLOAD}/{name}"))
        await eventually(lambda: self.factory.running == 1)
        connection = next(iter(self.factory.connections))
        await eventually(lambda: connection._write_paused)
        buffered = len(connection.transport.dataBuffer) + connection.transport._tempDataLen
        self.assertLess(buffered, 1_000_000)
        transport.resumeProducing()  # type: ignore[attr-defined]
        await client.until(lambda: len(client.received) > 40_000_000)
        await self.eventually(lambda: self.factory.running == 0)

    async def test_head(self) -> None:
        """What a download would be, without it; the file is not kept open."""
        await self.start()
        name = await upload(self.alice, bytes(400_000))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            client = await self.connect(
                self.head("HEAD", f"{DOWNLOAD}/{name}", "Connection: close")
            )
            data = await client.closed()
            self.assertIn(b"Content-Length: 400000\r\n", data)
            self.assertTrue(data.endswith(b"\r\n\r\n"))
        await self.eventually(lambda: not self.factory.connections)
        self.assertLess(len(os.listdir("/proc/self/fd")) - before, 10)

    async def test_reader_goes_away(self) -> None:
        """A download whose reader is gone ends, and with it what it holds."""
        await self.start()
        name = await upload(self.alice, bytes(40_000_000))
        client = await self.connect(self.head("GET", f"{DOWNLOAD}/{name}"))
        await client.until(lambda: len(client.received) > 100_000)
        transport = client.transport
        assert transport is not None
        transport.abortConnection()  # type: ignore[attr-defined]
        await self.eventually(lambda: self.factory.running == 0)
