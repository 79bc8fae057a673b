"""How long the HTTP protocol waits, and how it ends."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from homeserver.web.http import HttpLimits
from homeserver.web.request import Request
from homeserver.web.responses import Response
from tests.homeserver.web.raw_http import HttpTestCase, RawClient, request, status


class TimeoutTests(HttpTestCase):
    async def test_idle(self) -> None:
        client = await self.connect(request())
        await client.ends(b"GET /x ")
        self.pass_time(int(HttpLimits().idle_seconds) - 1)
        await self.later(0.02)
        self.assertFalse(client.is_closed)
        self.pass_time(2)
        self.assertNotIn(b"408", await client.closed())

    async def test_never_speaks(self) -> None:
        client = await self.connect()
        await self.eventually(lambda: bool(self.factory.connections))
        self.pass_time(int(HttpLimits().idle_seconds) + 1)
        self.assertEqual(await client.closed(), b"")

    async def test_slow_head(self) -> None:
        """Slow loris: a byte now and then does not keep a connection."""
        client = await self.connect(b"GET / HTTP/1.1\r\n")
        await self.eventually(lambda: any(each._buffer for each in self.factory.connections))
        (connection,) = self.factory.connections
        for _ in range(29):
            size = len(connection._buffer)
            client.send(b"X")
            await self.eventually(lambda: len(connection._buffer) > size)  # noqa: B023
            self.pass_time(1)
        self.assertEqual(client.received, b"")
        self.pass_time(2)
        self.assertEqual(status(await client.ends(b"}")), 408)
        self.pass_time(5)
        await client.closed()
        self.assertEqual(self.application.requests, [])

    async def test_slow_body(self) -> None:
        client = await self.connect(request("PUT", "/", b"x" * 10)[:-9])
        await self.eventually(lambda: any(each._body for each in self.factory.connections))
        self.pass_time(60)
        client.send(b"x")
        await self.eventually(
            lambda: any(len(each._body or b"") == 2 for each in self.factory.connections)
        )
        self.assertEqual(client.received, b"")
        self.pass_time(62)
        self.assertEqual(status(await client.ends(b"}")), 408)
        self.assertEqual(self.application.requests, [])

    async def test_long_poll_has_no_timeout(self) -> None:
        release: Deferred[None] = Deferred()

        async def answer(request: Request) -> Response:
            await release
            return Response(200, b"done")

        self.application.answer = answer
        client = await self.connect(request())
        await self.eventually(lambda: bool(self.application.requests))
        self.pass_time(3600)
        release.callback(None)
        await client.ends(b"done")

    async def test_client_that_stops_reading(self) -> None:
        async def answer(request: Request) -> Response:
            return Response(200, b"x" * 20_000_000)

        self.application.answer = answer
        client = await self.connect()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(request())
        await self.eventually(lambda: any(each._write_paused for each in self.factory.connections))
        await self.later(0.05)
        self.pass_time(int(HttpLimits().write_seconds) + 1)
        await self.eventually(lambda: not self.factory.connections)
        self.assertEqual(self.factory.running, 0)
        self.assertEqual(self.log.lines, [])

    async def test_waiting_costs_nothing(self) -> None:
        """Connections without a timeout near are not looked at, second after second."""
        waiting: list[Deferred[Response]] = []

        async def answer(request: Request) -> Response:
            waiting.append(Deferred())
            return await waiting[-1]

        self.application.answer = answer
        for _ in range(3):
            await self.connect(request())
        await self.eventually(lambda: len(self.application.requests) == 3)
        self.pass_time(1000)
        self.assertLessEqual(self.factory.deadlines.looks, 3)
        for deferred, client in zip(waiting, self.clients, strict=True):
            deferred.callback(Response(200, b"late"))
            await client.ends(b"late")
        looks = self.factory.deadlines.looks
        self.pass_time(int(HttpLimits().idle_seconds) - 1)
        self.assertEqual(self.factory.deadlines.looks, looks)


class WaitingTests(HttpTestCase):
    """Clients that go away, and a server that does."""

    def setUp(self) -> None:
        super().setUp()
        self.release: Deferred[None] = Deferred()
        self.outcome: list[str] = []
        self.long_poll = True
        self.application.answer = self.wait

    async def wait(self, request: Request) -> Response:
        request.is_cancellable = self.long_poll
        request.on_disconnect(lambda: self.outcome.append("disconnected"))
        try:
            await self.release
        except CancelledError:
            self.outcome.append("cancelled")
            raise
        self.outcome.append("finished")
        return Response(200, b"done")

    async def waiting(self) -> RawClient:
        client = await self.connect(request())
        await self.eventually(lambda: bool(self.application.requests))
        return client

    async def test_long_poll_is_cancelled(self) -> None:
        client = await self.waiting()
        client.transport.loseConnection()  # type: ignore[union-attr]
        await self.eventually(lambda: len(self.outcome) == 2)
        self.assertEqual(self.outcome, ["disconnected", "cancelled"])
        self.assertEqual((self.factory.running, self.log.lines), (0, []))

    async def test_others_finish(self) -> None:
        self.long_poll = False
        client = await self.waiting()
        client.transport.loseConnection()  # type: ignore[union-attr]
        await self.eventually(lambda: bool(self.outcome))
        self.release.callback(None)
        self.assertEqual(self.outcome, ["disconnected", "finished"])
        self.assertEqual((self.factory.running, self.log.lines), (0, []))

    async def test_stop_idle(self) -> None:
        client = await self.connect()
        await self.eventually(lambda: bool(self.factory.connections))
        stopped = self.factory.stop()
        await client.closed()
        self.clock.advance(0.1)
        await stopped

    async def test_stop_long_poll(self) -> None:
        client = await self.waiting()
        stopped = self.factory.stop()
        data = await client.closed()
        self.assertEqual(status(data), 503)
        self.assertIn(b"Retry-After: 1\r\n", data)
        self.assertEqual(self.outcome, ["cancelled"])
        self.clock.advance(0.1)
        await stopped

    async def test_stop_long_poll_early_answer(self) -> None:
        """A handler that asked to be told answers with what it has, in its own time."""

        async def answer(request: Request) -> Response:
            request.is_cancellable = True
            request.on_shutdown(lambda: self.outcome.append("told"))
            await self.release
            return Response(200, b"what there is")

        self.application.answer = answer
        client = await self.waiting()
        stopped = self.factory.stop()
        self.clock.pump([0.1] * 10)
        self.assertEqual(self.outcome, ["told"])
        self.release.callback(None)
        data = await client.closed()
        self.assertTrue(data.endswith(b"Connection: close\r\n\r\nwhat there is"), data)
        self.clock.advance(0.1)
        await stopped

    async def test_stop_running(self) -> None:
        self.long_poll = False
        client = await self.waiting()
        stopped = self.factory.stop()
        self.clock.pump([0.1] * 10)
        self.assertFalse(stopped.called)
        self.release.callback(None)
        data = await client.closed()
        self.assertTrue(data.endswith(b"Connection: close\r\n\r\ndone"), data)
        self.clock.advance(0.1)
        await stopped

    async def test_stop_time_limit(self) -> None:
        self.long_poll = False
        client = await self.waiting()
        stopped = self.factory.stop(5)
        self.clock.pump([0.1] * 60)
        await stopped
        self.assertEqual(await client.closed(), b"")
        self.release.callback(None)

    async def test_no_new_connections(self) -> None:
        await self.factory.stop()
        client = await self.connect(request())
        self.assertEqual(await client.closed(), b"")
