"""What a client that waits in `/sync` takes in memory stays within its budget.

`waiting_memory.json` has the budget: bytes that Python allocates for one waiting client on a
connection of its own, and objects that the garbage collector looks at. Change it when they become
fewer; raise it only with a reason, which is told in the commit.
"""

from __future__ import annotations

import gc
import json
import socket
import tracemalloc
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import structlog
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase

from homeserver.door import Door, Health
from homeserver.sync.notifier import Notifier
from homeserver.web.http import HttpFactory
from homeserver.web.prompt import write_at_once
from storage.database import sleep
from tests.support.databases import reactor
from tests.support.server import TestServer, User, make_server

BUDGET = Path(__file__).parent / "waiting_memory.json"
PARTS: tuple[Literal["client"]] = ("client",)
FIRST, MORE = 20, 180


class WaitingMemoryTest(TestCase):
    """Each client is a user of their own, alone in a room."""

    timeout = 180

    async def test_a_waiting_client(self) -> None:
        server = await make_server(self)
        port = self.listen(server)
        requests = [await self.request(await server.register()) for _ in range(FIRST + MORE)]
        # With the first ones everything is made that is made once for all.
        for request in requests[:FIRST]:
            self.send(port, request)
        await self.waiting(server, FIRST)
        for request in requests[FIRST:]:
            self.send(port, request)
        gc.collect()
        objects = len(gc.get_objects())
        tracemalloc.start()
        try:
            await self.waiting(server, FIRST + MORE)
            gc.collect()
            objects = len(gc.get_objects()) - objects
            taken = tracemalloc.get_traced_memory()[0]
            lines = tracemalloc.take_snapshot().statistics("lineno")[:40]
        finally:
            tracemalloc.stop()
        budget = json.loads(BUDGET.read_text())
        found = {"bytes": round(taken / MORE), "objects": round(objects / MORE)}
        told = "\n".join(f"{line.size // MORE:5} {line.traceback[0]}" for line in lines)
        self.assertLessEqual(found["bytes"], budget["bytes"], f"{found}; the most are\n{told}")
        self.assertLessEqual(found["objects"], budget["objects"], f"{found}; bytes:\n{told}")

    def listen(self, server: TestServer) -> int:
        """Have a server listen; its port."""
        hs = server.homeserver
        door = Door(hs.router, PARTS, Health(hs.db, hs.reactor), hs.metrics)
        factory = HttpFactory(door, clock=reactor, log=structlog.get_logger())
        port: Any = reactor.listenTCP(0, factory, backlog=FIRST + MORE, interface="127.0.0.1")
        write_at_once(port)
        self.addCleanup(factory.stop, 0)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        number: int = port.getHost().port
        return number

    async def request(self, user: User) -> bytes:
        """The request of a client that has everything, as a browser writes it."""
        await user.create_room()
        since = None
        for _ in range(3):
            since = (await user.sync(since))["next_batch"]
        query = urlencode({"since": since, "timeout": 60_000, "set_presence": "offline"})
        lines = (
            f"GET /_matrix/client/v3/sync?{query} HTTP/1.1",
            "Host: localhost",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Accept: application/json",
            "Accept-Language: en-US,en;q=0.5",
            "Accept-Encoding: gzip, deflate, br, zstd",
            f"Authorization: Bearer {user.token}",
            "Origin: https://app.element.io",
            "Connection: keep-alive",
        )
        return "\r\n".join((*lines, "", "")).encode()

    def send(self, port: int, request: bytes) -> None:
        """Ask on a new connection; the system keeps both until the server takes them."""
        connection = socket.create_connection(("127.0.0.1", port))
        self.addCleanup(connection.close)
        connection.sendall(request)

    async def waiting(self, server: TestServer, count: int) -> None:
        """Return when so many wait, all of them for a hint."""
        notifier = server.homeserver.services[Notifier]
        while sum(len(watch.waiters) for watch in notifier._watches.values()) < count:
            await sleep(reactor, 0.05)
