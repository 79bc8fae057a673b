"""Proxies with a switch: each stands before one server, and drops what the switch says.

The proxy ends TLS under the server's name and knows who asks by the `origin` of the request's
signature, so that traffic can be dropped for each pair of servers and each direction.
"""

from __future__ import annotations

from typing import Any, cast

import treq
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http import Request
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from homeserver.core import x_matrix
from tests.support.network import server_tls
from tests.support.peer_http import BodyProducer

reactor: Any = installed_reactor
_KEPT = (b"authorization", b"content-type", b"accept", b"user-agent")


class Switch:
    """Which servers reach which, by name; at first all do. `dropped` counts."""

    def __init__(self) -> None:
        self._cuts: set[tuple[str, str]] = set()
        self.dropped = 0

    def cut(self, source: str, target: str) -> None:
        self._cuts.add((source, target))

    def partition(self, *groups: list[str]) -> None:
        """Nobody reaches anybody of another group."""
        for group in groups:
            for other in groups:
                if other is not group:
                    self._cuts |= {(source, target) for source in group for target in other}

    def heal(self) -> None:
        self._cuts.clear()

    def lets_through(self, source: str | None, target: str) -> bool:
        """Requests without a signature (for keys) go through."""
        through = (source, target) not in self._cuts
        self.dropped += not through
        return through


class Proxy(Resource):
    """Listens on `port` as the server `name`, and asks the one on `backend_port`."""

    isLeaf = True

    def __init__(self, switch: Switch, name: str, port: int, backend_port: int) -> None:
        super().__init__()
        self._switch = switch
        self._name = name
        self._backend = f"http://127.0.0.1:{backend_port}"
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 20
        self._agent: Any = Agent(reactor, pool=self._pool)
        self._passing: set[Deferred[None]] = set()
        self._is_stopped = False
        site = Site(self)
        site.noisy = False
        self._listening = reactor.listenSSL(port, site, server_tls(), interface="127.0.0.1")

    def render(self, request: Request) -> int:
        gone: list[bool] = []
        request.notifyFinish().addBoth(lambda _: gone.append(True))
        passing = Deferred.fromCoroutine(self._pass_or_drop(request, gone))
        self._passing.add(passing)
        passing.addBoth(lambda _: self._passing.discard(passing))
        return NOT_DONE_YET

    async def _pass_or_drop(self, request: Request, gone: list[bool]) -> None:
        try:
            await self._pass(request, gone)
        except Exception:
            # The server behind is gone, which its peers see as a lost connection.
            self._drop(request)

    async def _pass(self, request: Any, gone: list[bool]) -> None:
        if self._is_stopped or not self._switch.lets_through(_origin(request), self._name):
            self._drop(request)
            return
        headers = {
            name: values
            for name, values in request.requestHeaders.getAllRawHeaders()
            if name.lower() in _KEPT
        }
        content = request.content.read()
        response: Any = await cast(
            Any,
            self._agent.request(
                request.method,
                self._backend.encode() + request.uri,
                Headers(headers),
                BodyProducer(content) if content else None,
            ),
        )
        body: bytes = await treq.content(response)
        # A cut holds for answers as well.
        if gone or not self._switch.lets_through(_origin(request), self._name):
            self._drop(request)
            return
        request.setResponseCode(response.code)
        for kind in response.headers.getRawHeaders(b"content-type") or []:
            request.setHeader(b"content-type", kind)
        request.setHeader(b"content-length", str(len(body)).encode())
        request.write(body)
        request.finish()

    def _drop(self, request: Any) -> None:
        if request.channel is not None:
            request.channel.forceAbortClient()

    async def stop(self) -> None:
        # The servers are still there, and go on asking over the connections that they have.
        self._is_stopped = True
        for passing in list(self._passing):
            passing.cancel()
        await maybeDeferred(self._listening.stopListening)
        await cast(Any, self._pool.closeCachedConnections())


def _origin(request: Any) -> str | None:
    header = request.getHeader("authorization")
    try:
        return str(x_matrix.parse(header)[0].origin) if header else None
    except x_matrix.MalformedAuthorization:
        return None
