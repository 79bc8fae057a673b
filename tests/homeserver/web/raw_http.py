"""A listening port, and a client that sends and reads raw bytes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from homeserver.web.http import HttpFactory
from homeserver.web.prompt import write_at_once
from homeserver.web.request import BodyPlan, Request
from homeserver.web.responses import Response
from tests.support.log import CapturedLog

real_reactor: Any = reactor


class Application:
    """Answers with what `answer` returns; remembers the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.plan = BodyPlan(1_000_000, stream=False)
        self.answer: Callable[[Request], Awaitable[Response]] = self.echo

    async def echo(self, request: Request) -> Response:
        return Response(200, f"{request.method} {request.target} ".encode() + request.body)

    def body_plan(self, request: Request) -> BodyPlan:
        return self.plan

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        return await self.answer(request)


class RawClient(Protocol):
    """Collects what the server sends."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.is_closed = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def send(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._check()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.is_closed = True
        self._check()

    def _check(self) -> None:
        for condition, deferred in list(self._waiting):
            if condition():
                self._waiting.remove((condition, deferred))
                deferred.callback(None)

    async def until(self, condition: Callable[[], bool]) -> bytes:
        """Wait for something to be true of this client; all that was received."""
        if not condition():
            deferred: Deferred[None] = Deferred()
            self._waiting.append((condition, deferred))
            await deferred
        return bytes(self.received)

    async def ends(self, end: bytes) -> bytes:
        """Wait until the server's data ends like this."""
        return await self.until(lambda: self.received.endswith(end))

    async def closed(self) -> bytes:
        """Wait until the server has closed the connection."""
        return await self.until(lambda: self.is_closed)


class HttpTestCase(TestCase):
    """A factory on a loopback port whose time is `self.clock`."""

    timeout = 20
    at_once = True
    """Whether connections write at once, as those of listeners without TLS do."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.application = Application()
        self.log = CapturedLog()
        self.clients: list[RawClient] = []
        self.listen()

    def listen(
        self, wrap: Callable[[HttpFactory], Any] = lambda factory: factory, **options: Any
    ) -> None:
        """Listen with other options of HttpFactory; `wrap` puts another protocol around it."""
        options.setdefault("clock", self.clock)
        self.factory = HttpFactory(self.application, log=self.log.logger, **options)
        self.port = real_reactor.listenTCP(0, wrap(self.factory), interface="127.0.0.1")
        if self.at_once:
            write_at_once(self.port)
        self.addCleanup(self._clean_up, self.port, self.factory)

    async def _clean_up(self, port: Any, factory: HttpFactory) -> None:
        await port.stopListening()
        for connection in list(factory.connections):
            connection.transport.abortConnection()
        for client in self.clients:
            if not client.is_closed:
                client.transport.abortConnection()  # type: ignore[union-attr]
                await client.closed()
        await self.eventually(lambda: not factory.connections)

    async def connect(self, data: bytes = b"") -> RawClient:
        endpoint = TCP4ClientEndpoint(real_reactor, "127.0.0.1", self.port.getHost().port)
        client: RawClient = await connectProtocol(endpoint, RawClient())
        self.clients.append(client)
        if data:
            client.send(data)
        return client

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Let the reactor run until something is true; the test's timeout ends it."""
        while not condition():
            await self.later()

    async def later(self, seconds: float = 0.001) -> None:
        await deferLater(real_reactor, seconds)

    def pass_time(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)


def request(
    method: str = "GET",
    target: str = "/x",
    body: bytes | None = None,
    *headers: str,
    version: str = "1.1",
) -> bytes:
    """The bytes of a request with a Host header, and a Content-Length if there is a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: example.org", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def status(data: bytes) -> int:
    """The status of the last response in `data`."""
    return int(re.findall(rb"(?:^|[^ ])HTTP/1.1 ([0-9]{3}) ", data)[-1])
