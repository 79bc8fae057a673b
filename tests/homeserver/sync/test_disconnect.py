"""Clients that go away while their `/sync` waits, and servers that stop meanwhile."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import structlog
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.sync.notifier import Notifier, Watch
from homeserver.users.presence import PresenceTracker
from homeserver.web.http import HttpFactory
from homeserver.web.prompt import write_at_once
from homeserver.web.request import Request
from homeserver.web.responses import Response
from tests.homeserver.sync.scene import SyncTestCase
from tests.support.process import ServerProcess

LONG = 50_000
real_reactor: Any = reactor


class DisconnectTest(SyncTestCase):
    async def waiting(self, **query: Any) -> tuple[Request, Deferred[Response], Watch]:
        """Bob's sync, which waits."""
        options = {"since": await self.token(self.bob), "timeout": LONG, **query}
        request = self.bob.client.build("GET", "/_matrix/client/v3/sync", query=options)
        answer = Deferred.fromCoroutine(self.server.homeserver.router.handle(request))
        watches = self.server.homeserver.services[Notifier]._watches
        while not (watch := watches[self.bob.user_id]).waiters:
            await deferLater(reactor, 0.01, lambda: None)
        return request, answer, watch

    def syncing(self) -> int:
        """How many of Bob's syncs presence counts."""
        return self.server.homeserver.services[PresenceTracker]._local[self.bob.user_id].running

    async def test_nothing_is_left_of_a_waiting_client(self) -> None:
        """The waiter, its timer, and the mark that a client is syncing."""
        before = set(reactor.getDelayedCalls())
        request, answer, watch = await self.waiting()
        self.assertEqual(self.syncing(), 1)
        timers = [
            call
            for call in set(reactor.getDelayedCalls()) - before
            if "_Ends._over" in repr(cast(Any, call).func)
        ]
        self.assertEqual(len(timers), 1)
        # What the transport does.
        self.assertTrue(request.is_cancellable)
        request.is_cancelled = True
        answer.cancel()
        with self.assertRaises(CancelledError):
            await answer
        self.assertEqual(watch.waiters, set())
        self.assertEqual([call for call in timers if call.active()], [])
        self.assertEqual(self.syncing(), 0)
        # The user's other clients go on.
        room_id = await self.shared_room()
        self.assertIn(room_id, (await self.bob.sync())["rooms"]["join"])

    async def test_one_of_two_clients_goes(self) -> None:
        room_id = await self.shared_room()
        request, gone, watch = await self.waiting()
        _, stays, _ = await self.waiting()
        while len(watch.waiters) < 2:
            await deferLater(reactor, 0.01, lambda: None)
        request.is_cancelled = True
        gone.cancel()
        with self.assertRaises(CancelledError):
            await gone
        self.assertEqual((len(watch.waiters), self.syncing()), (1, 1))
        await self.alice.send(room_id, "hello")
        response = await stays
        assert isinstance(response.body, bytes)
        self.assertIn("hello", response.body.decode())
        self.assertEqual(self.syncing(), 0)

    async def test_goes_while_the_answer_is_computed(self) -> None:
        notifier = self.server.homeserver.services[Notifier]
        request = self.bob.client.build("GET", "/_matrix/client/v3/sync")
        answer = Deferred.fromCoroutine(self.server.homeserver.router.handle(request))
        while not notifier._watches:
            await deferLater(reactor, 0, lambda: None)
        request.is_cancelled = True
        answer.cancel()
        with self.assertRaises(CancelledError):
            await answer
        self.assertEqual(self.syncing(), 0)
        room_id = await self.shared_room()
        self.assertIn(room_id, (await self.bob.sync())["rooms"]["join"])

    async def test_server_stops(self) -> None:
        """Who waits is answered with what there is."""
        request, answer, watch = await self.waiting()
        self.assertTrue(request.shutting_down())
        response = await answer
        assert isinstance(response.body, bytes)
        self.assertEqual(response.status, 200)
        self.assertIn("next_batch", json.loads(response.body))
        self.assertEqual((watch.waiters, self.syncing()), (set(), 0))

    async def test_notifier_stops(self) -> None:
        _, answer, _ = await self.waiting()
        self.server.homeserver.services[Notifier].stop()
        self.assertEqual((await answer).status, 200)


class ConnectionTest(SyncTestCase):
    """The same over a connection."""

    async def prepare(self) -> None:
        await super().prepare()
        homeserver = self.server.homeserver
        factory = HttpFactory(homeserver.router, clock=real_reactor, log=structlog.get_logger())
        port = real_reactor.listenTCP(0, factory, interface="127.0.0.1")
        write_at_once(port)
        self.factory, self.port = factory, port.getHost().port
        self.addCleanup(factory.stop, 0)
        self.addCleanup(port.stopListening)

    async def waiting(self) -> tuple[socket.socket, Watch]:
        """A connection on which Bob waits."""
        since = await self.token(self.bob)
        client = socket.create_connection(("127.0.0.1", self.port))
        self.addCleanup(client.close)
        client.settimeout(5)
        client.sendall(self.request(since))
        watches = self.server.homeserver.services[Notifier]._watches
        await self.until(lambda: bool(watches[self.bob.user_id].waiters))
        return client, watches[self.bob.user_id]

    def request(self, since: str) -> bytes:
        # Of presence somebody may be told at any time.
        query = urlencode({"timeout": LONG, "since": since, "filter": '{"presence":{"types":[]}}'})
        return (
            f"GET /_matrix/client/v3/sync?{query} HTTP/1.1\r\n"
            f"Host: localhost\r\nAuthorization: Bearer {self.bob.token}\r\n\r\n"
        ).encode()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await deferLater(reactor, 0.01, lambda: None)

    async def test_the_client_goes(self) -> None:
        router = self.server.homeserver.router
        client, watch = await self.waiting()
        running = router.running
        client.close()
        await self.until(lambda: not self.factory.connections)
        self.assertEqual(watch.waiters, set())
        self.assertEqual((router.running, self.factory.running), (running - 1, 0))
        presence = self.server.homeserver.services[PresenceTracker]
        self.assertEqual(presence._local[self.bob.user_id].running, 0)

    async def test_is_answered_and_asks_again(self) -> None:
        room_id = await self.shared_room()
        client, _ = await self.waiting()
        for text in ("one", "two"):
            await self.alice.send(room_id, text)
            await self.until(lambda: not self.factory.running)
            self.assertIn(text.encode(), client.recv(100_000))
            since = await self.token(self.bob)
            client.sendall(self.request(since))
            await self.until(lambda: self.factory.running == 1)
            await deferLater(reactor, 0.1, lambda: None)

    async def test_the_server_stops(self) -> None:
        client, watch = await self.waiting()
        (connection,) = self.factory.connections
        connection.stop()
        await self.until(lambda: not self.factory.running)
        self.assertTrue(client.recv(100_000).startswith(b"HTTP/1.1 200 "))
        self.assertEqual(watch.waiters, set())


class StopTest(TestCase):
    def test_waiting_client_is_answered(self) -> None:
        """At SIGTERM a client that waits gets its answer, and the server ends cleanly."""
        server = ServerProcess(Path(self.mktemp()))
        self.addCleanup(server.kill)
        server.start()
        status, body = server.request(
            "POST",
            "/_matrix/client/v3/register",
            {"username": "alice", "password": "wonderland", "auth": {"type": "m.login.dummy"}},
        )
        self.assertEqual(status, 200, body)
        token = json.loads(body)["access_token"]
        # Of the first answers some may be about the user's own presence.
        path = "/_matrix/client/v3/sync?filter=" + '{"presence":{"types":[]}}'.replace('"', "%22")
        since = json.loads(server.request("GET", path, token=token)[1])["next_batch"]
        answers: list[tuple[int, str]] = []

        def poll() -> None:
            url = f"{path}&since={since}&timeout=300000"
            answers.append(server.request("GET", url, token=token, timeout=120))

        client = threading.Thread(target=poll)
        client.start()
        # It waits as soon as it runs: the first sync's token says that it has everything.
        self.until_running(server)
        self.assertEqual(answers, [])
        server.signal(signal.SIGTERM)
        # Longer than the server gives its clients, far shorter than what the client asked for.
        client.join(60)
        self.assertEqual(server.wait(), 0, server.log())
        self.assertFalse(client.is_alive())
        ((status, body),) = answers
        self.assertEqual(status, 200, body)
        answer = json.loads(body)
        self.assertIn("next_batch", answer)
        self.assertNotIn("rooms", answer)
        self.assertNotIn("Traceback", server.log())

    def until_running(self, server: ServerProcess) -> None:
        """Wait until the server answers a request, beside the one that asks for this."""
        deadline = time.monotonic() + 60
        pattern = re.compile(r"^hearth_requests_running (\d+)", re.MULTILINE)
        while time.monotonic() < deadline:
            metrics = server.get(f"http://127.0.0.1:{server.own_port}/metrics")[1]
            found = pattern.search(metrics)
            if found is not None and int(found[1]) > 0:
                return
            time.sleep(0.02)
        self.fail("the client does not wait")
