"""One message to many: `python -m tests.measure.fanout [--clients N] [--postgres]`.

A real server process with one room of N users, each of whom waits in `/sync` on a connection of
their own. Prints microseconds of CPU of the server, and of its database, for each delivery: for
messages that are sent when the one before has reached everybody (paced) and as fast as they are
answered (burst), and for a burst while a tenth of the users change their presence after each of its
messages, with the changes; then for each `/sync` that has nothing to tell.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from tests.measure.client import MeasuringClient
from tests.measure.instances import Instance

_FILTER = '{"room":{"timeline":{"limit":100},"state":{"lazy_load_members":true}}}'
_BATCH = b'"next_batch":"'


class Waiting(asyncio.Protocol):
    """A client that waits in `/sync` all the time; what it gets is searched, not parsed."""

    def __init__(self, token: str, since: str, query: str) -> None:
        self._head = (
            " HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
            f"User-Agent: measuring\r\nAuthorization: Bearer {token}\r\n\r\n"
        ).encode()
        self._start = f"GET /_matrix/client/v3/sync?{query}&since=".encode()
        self.since = since.encode()
        self.bodies = 0
        """How many messages have come."""
        self.answers = 0
        self._data = b""
        self.transport: asyncio.Transport | None = None
        self.on_answer: Callable[[], None] = lambda: None
        self.goes_on = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self) -> None:
        assert self.transport is not None
        self.transport.write(self._start + self.since + self._head)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        place = self._data.find(b"Content-Length: ") + 16
        length = int(self._data[place : self._data.find(b"\r", place)])
        if len(self._data) < end + 4 + length:
            return
        body, self._data = self._data[end + 4 :], b""
        start = body.rfind(_BATCH) + len(_BATCH)
        self.since = body[start : body.find(b'"', start)]
        self.bodies += body.count(b'"body":"message')
        self.answers += 1
        if self.goes_on:
            self.ask()
        self.on_answer()


def _itself(client: Waiting) -> Waiting:
    return client


class Measurement:
    """See the module."""

    def __init__(self, server: Instance, options: argparse.Namespace) -> None:
        self._server = server
        self._options = options
        self._left = 0
        self._done = asyncio.Event()
        self.clients: list[Waiting] = []
        self._users: list[MeasuringClient] = []
        self._ways: dict[str, int] = {}

    def _answers(self) -> dict[str, int]:
        """How many answers the server made from memory, and from the database for what reason."""
        process = getattr(self._server.server, "_process")  # noqa: B009
        with urllib.request.urlopen(f"http://127.0.0.1:{process.own_port}/metrics") as answer:
            text = answer.read().decode()
        found = re.findall(
            r'hearth_sync_answers_total\{reason="(\w*)",way="(\w+)"\} ([0-9.]+)', text
        )
        return {reason or way: int(float(value)) for reason, way, value in found}

    async def prepare(self) -> None:
        count = self._options.clients
        self.sender = await self._server.register("sender")
        self.room = await self.sender.create_room()
        loop = asyncio.get_running_loop()
        port = self._server.server.client_port
        filter_ = quote(_FILTER)
        for number in range(count):
            user = await self._server.register(f"user{number}")
            await user.join(self.room)
            user.close()
            if not number % 10:
                self._users.append(user.again())
            query = f"timeout=60000&filter={filter_}"
            token = user.token
            self.clients.append(Waiting(token, "", query))
        for client in self.clients:
            await loop.create_connection(partial(_itself, client), "127.0.0.1", port)
            client.on_answer = self._note
        await self._server.quiet()
        for client in self.clients:
            # The first has no token.
            client._start, start = client._start.replace(b"&since=", b""), client._start
            client.goes_on = False
            await self._wait_for(1, client.ask)
            client._start, client.goes_on = start, True

    async def _wait_for(self, answers: int, begin: Callable[[], object]) -> None:
        self._left, self._done = answers, asyncio.Event()
        begin()
        await asyncio.wait_for(self._done.wait(), 120)

    def _note(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._done.set()

    async def _everybody_has(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while any(client.bodies < count for client in self.clients):
            if time.monotonic() > deadline:
                raise RuntimeError("Messages are missing")
            await asyncio.sleep(0.02)

    async def measured(self, what: str, count: int, work: Awaitable[object]) -> None:
        """Print microseconds of CPU for each of `count`."""
        answers = sum(client.answers for client in self.clients)
        before, db = self._server.used_by_server(), self._server.used_by_database()
        began = time.monotonic()
        await work
        took = time.monotonic() - began
        await asyncio.sleep(0.3)
        used = (self._server.used_by_server() - before) * 1e6 / count
        by_db = (self._server.used_by_database() - db) * 1e6 / count
        answers = sum(client.answers for client in self.clients) - answers
        now, before_ = self._answers(), self._ways
        ways = {name: value - before_.get(name, 0) for name, value in now.items()}
        ways = {name: value for name, value in ways.items() if value}
        self._ways = now
        print(
            f"{what:<14}{used:8.1f} µs  database {by_db:6.1f} µs  "
            f"{count / took:8.0f}/s  {answers} answers {ways}",
            flush=True,
        )

    async def run(self) -> None:
        clients = self.clients
        for client in clients:
            client.ask()
        await self._server.quiet()
        sent = 0

        async def paced(messages: int) -> None:
            nonlocal sent
            for _ in range(messages):
                await self.sender.send(self.room, f"message {sent}")
                sent += 1
                await self._everybody_has(sent)

        async def burst(messages: int) -> None:
            nonlocal sent
            for _ in range(messages):
                await self.sender.send(self.room, f"message {sent}")
                sent += 1
            await self._everybody_has(sent)

        async def moving(messages: int) -> None:
            nonlocal sent
            for number in range(messages):
                changes = (
                    user.call(
                        "PUT",
                        f"/presence/{quote(user.user_id)}/status",
                        {"presence": "online", "status_msg": f"{number} {sent}"},
                    )
                    for user in self._users
                )
                await asyncio.gather(self.sender.send(self.room, f"message {sent}"), *changes)
                sent += 1
            await self._everybody_has(sent)

        await paced(3)
        self._ways = self._answers()
        count = self._options.messages
        for _ in range(self._options.rounds):
            await self.measured("paced", count * len(clients), paced(count))
            await self.measured("burst", 3 * count * len(clients), burst(3 * count))
            await self.measured("with presence", count * len(clients), moving(count))
        await self._nothing_new()

    async def _nothing_new(self) -> None:
        client = self.clients[0]
        query = client._start
        for each in self.clients:
            each.goes_on = False
        await self.sender.send(self.room, "the end")
        await asyncio.sleep(2)
        client._start = query.replace(b"timeout=60000", b"timeout=0")

        async def ask(times: int) -> None:
            for _ in range(times):
                await self._wait_for(1, client.ask)

        await ask(50)
        for _ in range(self._options.rounds):
            await self.measured("nothing new", 2000, ask(2000))


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # PostgreSQL may have to run as another user.
        server = Instance("hearth", Path(directory) / "server", options.postgres)
        profiler = None
        try:
            await server.start()
            measurement = Measurement(server, options)
            await measurement.prepare()
            if options.profile:
                command = [options.py_spy, "record", "-p", str(server.pid), "-o", options.profile]
                profiler = subprocess.Popen([*command, "-f", "raw", "-r", "200", "-d", "600"])
                await asyncio.sleep(2)
            await measurement.run()
        finally:
            if profiler is not None:
                profiler.send_signal(2)
                profiler.wait(30)
            server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--profile", help="a file for what py-spy records")
    parser.add_argument("--py-spy", default="py-spy")
    asyncio.run(main(parser.parse_args()))
