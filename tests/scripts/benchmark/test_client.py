"""The benchmark's client, against a server that says what it is told to say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.trial.unittest import TestCase

from scripts.benchmark.client import Client, Json, Refused, User
from scripts.benchmark.polling import Poller

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


class Server:
    """Gives the answers in their order, on any connection; keeps the requests' first lines."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while self.answers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.split("Content-Length: ")[1].split("\r\n")[0])
                await reader.readexactly(length)
                self.asked.append(head.split(" HTTP/")[0])
                answer = self.answers.pop(0)
                writer.write(answer)
                if b"Connection: close" in answer:
                    break
            else:
                await asyncio.sleep(100)
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


def serving(answers: list[bytes], use: Callable[[Client, Server], Awaitable[None]]) -> None:
    """Run `use` with a client of a server that gives these answers."""

    async def run() -> None:
        server = Server(answers)
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        client = Client(listening.sockets[0].getsockname()[1])
        try:
            async with asyncio.timeout(20):
                await use(client, server)
        finally:
            client.close()
            server.stop()
            listening.close()

    asyncio.run(run())


class ClientTests(TestCase):
    def test_one_connection_is_kept_for_requests_one_after_the_other(self) -> None:
        async def use(client: Client, server: Server) -> None:
            for number in range(3):
                answer = await client.call("PUT", f"/{number}", {"body": "x"}, "token")
                self.assertEqual(answer, {"a": 12})
            self.assertEqual(server.asked, ["PUT /0", "PUT /1", "PUT /2"])
            self.assertEqual(server.connections, 1)

        serving([_OK + b'{"a": 12}'] * 3, use)

    def test_chunks_and_closed_connections(self) -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

        async def use(client: Client, server: Server) -> None:
            self.assertEqual(await client.call("GET", "/"), {"a": 12})
            self.assertEqual(await client.call("GET", "/"), {"a": 34})
            self.assertEqual(server.connections, 2)

        serving([chunked + b'4\r\n{"a"\r\n5\r\n: 12}\r\n0\r\n\r\n', _OK + b'{"a": 34}'], use)

    def test_refused(self) -> None:
        async def use(client: Client, server: Server) -> None:
            with self.assertRaises(Refused) as caught:
                await client.call("GET", "/x")
            self.assertEqual(caught.exception.status, 403)
            self.assertEqual(caught.exception.body, {"a": 12})

        serving([b'HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n{"a": 12}'], use)

    def test_a_connection_that_breaks(self) -> None:
        async def use(client: Client, server: Server) -> None:
            with self.assertRaises(ConnectionError):
                await client.call("GET", "/x")

        serving([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{"], use)


class PollerTests(TestCase):
    def _user(self, client: Client) -> User:
        return User(client, {"user_id": "@u:x", "device_id": "D", "access_token": "T"})

    def test_it_asks_again_from_where_the_answer_ended(self) -> None:
        answers = [
            _OK.replace(b"9", b"%d" % len(body)) + body
            for body in (b'{"next_batch": "s/2"}', b'{"next_batch": "s3"}')
        ]

        async def use(client: Client, server: Server) -> None:
            heard: list[str] = []
            done = asyncio.Event()

            def hear(answer: Json) -> None:
                heard.append(answer["next_batch"])
                if len(heard) == 2:
                    done.set()

            poller = Poller(self._user(client), "f", 30, hear, self.fail)
            poller.start("s1")
            await done.wait()
            poller.close()
            self.assertEqual(heard, ["s/2", "s3"])
            self.assertEqual([line.split("since=")[1] for line in server.asked], ["s1", "s%2F2"])
            self.assertEqual(server.connections, 1)

        serving(answers, use)

    def test_a_failure_is_told_and_ends_it(self) -> None:
        async def use(client: Client, server: Server) -> None:
            failures: asyncio.Queue[Exception] = asyncio.Queue()
            poller = Poller(self._user(client), "f", 30, self.fail, failures.put_nowait)
            poller.start("s1")
            self.assertIsInstance(await failures.get(), Refused)
            self.assertEqual(len(server.asked), 1)

        serving([b'HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n{"a": 12}'], use)
