"""The HTTP of a scripted remote server: signed requests out, scripted answers in."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, readBody
from twisted.web.http import Request as TwistedRequest
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from homeserver.core import x_matrix
from homeserver.core.types import JsonObject
from storage.database import sleep
from tests.support.network import authority, reactor

_PREFIX = "/_matrix/federation"
_TEMPLATES = {
    "keys": "GET /_matrix/key/v2/server",
    "notary": "POST /_matrix/key/v2/query",
    "version": f"GET {_PREFIX}/v1/version",
    "send": f"PUT {_PREFIX}/v1/send/{{}}",
    "make_join": f"GET {_PREFIX}/v1/make_join/{{}}/{{}}",
    "send_join": f"PUT {_PREFIX}/v2/send_join/{{}}/{{}}",
    "make_leave": f"GET {_PREFIX}/v1/make_leave/{{}}/{{}}",
    "send_leave": f"PUT {_PREFIX}/v2/send_leave/{{}}/{{}}",
    "make_knock": f"GET {_PREFIX}/v1/make_knock/{{}}/{{}}",
    "send_knock": f"PUT {_PREFIX}/v1/send_knock/{{}}/{{}}",
    "invite": f"PUT {_PREFIX}/v2/invite/{{}}/{{}}",
    "invite_v1": f"PUT {_PREFIX}/v1/invite/{{}}/{{}}",
    "exchange": f"PUT {_PREFIX}/v1/exchange_third_party_invite/{{}}",
    "event": f"GET {_PREFIX}/v1/event/{{}}",
    "state": f"GET {_PREFIX}/v1/state/{{}}",
    "state_ids": f"GET {_PREFIX}/v1/state_ids/{{}}",
    "event_auth": f"GET {_PREFIX}/v1/event_auth/{{}}/{{}}",
    "backfill": f"GET {_PREFIX}/v1/backfill/{{}}",
    "missing": f"POST {_PREFIX}/v1/get_missing_events/{{}}",
    "timestamp": f"GET {_PREFIX}/v1/timestamp_to_event/{{}}",
    "hierarchy": f"GET {_PREFIX}/v1/hierarchy/{{}}",
    "profile": f"GET {_PREFIX}/v1/query/profile",
    "directory": f"GET {_PREFIX}/v1/query/directory",
    "devices": f"GET {_PREFIX}/v1/user/devices/{{}}",
    "keys_query": f"POST {_PREFIX}/v1/user/keys/query",
    "keys_claim": f"POST {_PREFIX}/v1/user/keys/claim",
    "media": f"GET {_PREFIX}/v1/media/download/{{}}",
    "thumbnail": f"GET {_PREFIX}/v1/media/thumbnail/{{}}",
    "legacy_media": "GET /_matrix/media/v3/download/{}/{}",
    "public_rooms": f"GET {_PREFIX}/v1/publicRooms",
    "search_public_rooms": f"POST {_PREFIX}/v1/publicRooms",
}
ENDPOINTS = tuple(_TEMPLATES)
"""The names of the endpoints, under which hooks are set and requests recorded."""
_ROUTES = [
    (name, re.compile(re.escape(text).replace(r"\{\}", "([^/]+)")))
    for name, text in _TEMPLATES.items()
]


@dataclass
class Received:
    """A request to the peer. `parts` are the decoded parameters of the path."""

    name: str
    method: str
    path: str
    parts: list[str]
    query: dict[str, list[str]]
    origin: str | None
    body: Any


@dataclass
class Reply:
    """An answer. `body`: JSON, or bytes as they are, or an iterator of bytes that may be endless.

    `pause` (s) comes before each chunk; `hang`: no answer until the connection ends.
    """

    body: Any = field(default_factory=dict)
    status: int = 200
    pause: float = 0.0
    hang: bool = False
    headers: dict[str, str] = field(default_factory=dict)


Answer = Reply | JsonObject | list[Any] | None
Handler = Callable[[Received], Answer | Awaitable[Answer]]


class PeerResource(Resource):
    """Passes each request to `answer`; a fault of the script goes to `faults`."""

    isLeaf = True

    def __init__(self, answer: Handler) -> None:
        super().__init__()
        self._answer = answer
        self.faults: list[BaseException] = []
        self._under_way: set[Deferred[None]] = set()
        self._is_stopping = False

    def render(self, request: TwistedRequest) -> int:
        gone = [False]
        request.notifyFinish().addBoth(lambda _: gone.__setitem__(0, True))
        ended: Deferred[None] = Deferred()
        self._under_way.add(ended)

        def end(_: object) -> None:
            self._under_way.discard(ended)
            ended.callback(None)

        Deferred.fromCoroutine(self._render(request, gone)).addErrback(self._failed).addBoth(end)
        return NOT_DONE_YET

    async def stop(self) -> None:
        """End the answers that are being given."""
        self._is_stopping = True
        for ended in list(self._under_way):
            await ended

    def _failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self.faults.append(failure.value)

    async def _render(self, request: Any, gone: list[bool]) -> None:
        try:
            answer = self._answer(_received(request))
            if isawaitable(answer):
                answer = await answer
        except Exception as error:
            self.faults.append(error)
            answer = Reply({"errcode": "M_UNKNOWN", "error": f"script: {error!r}"}, 500)
        if answer is None:
            answer = Reply({"errcode": "M_UNRECOGNIZED", "error": "not scripted"}, 404)
        reply = answer if isinstance(answer, Reply) else Reply(answer)
        if reply.hang or gone[0]:
            return
        request.setResponseCode(reply.status)
        request.setHeader(b"content-type", b"application/json")
        for name, value in reply.headers.items():
            request.setHeader(name.encode(), value.encode())
        chunks = reply.body
        if not isinstance(chunks, Iterator):
            data = chunks if isinstance(chunks, bytes) else json.dumps(chunks).encode()
            request.setHeader(b"content-length", str(len(data)).encode())
            chunks = iter([data])
        for chunk in chunks:
            await sleep(reactor, reply.pause)
            if gone[0] or self._is_stopping:
                return
            request.write(chunk)
        request.finish()


def _received(request: Any) -> Received:
    target = request.uri.decode("ascii")
    parts = urlsplit(target)
    method = request.method.decode("ascii")
    data = request.content.read()
    try:
        body = json.loads(data) if data else None
    except ValueError:
        body = data
    header = request.getHeader("authorization")
    try:
        origin = str(x_matrix.parse(header)[0].origin) if header else None
    except x_matrix.MalformedAuthorization:
        origin = None
    name, arguments = "other", list[str]()
    for known, pattern in _ROUTES:
        if match := pattern.fullmatch(f"{method} {parts.path}"):
            name, arguments = known, [unquote(each) for each in match.groups()]
    return Received(name, method, parts.path, arguments, parse_qs(parts.query), origin, body)


class PeerClient:
    """Requests over TLS, checked against the CA of the tests."""

    def __init__(self, own_reactor: Any) -> None:
        self._pool = HTTPConnectionPool(own_reactor)
        trust: Any = Certificate
        policy = BrowserLikePolicyForHTTPS(trustRoot=trust.loadPEM(authority().cert_pem.bytes()))
        self._agent = Agent(own_reactor, policy, connectTimeout=10, pool=self._pool)

    async def send(
        self, method: str, destination: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        """(status, JSON or bytes). Raises what the connection raises."""
        raw = Headers({name: [value] for name, value in headers.items()})
        producer = BodyProducer(body) if body else None
        response: Any = await self._agent.request(
            method.encode(), f"https://{destination}{target}".encode(), raw, producer
        )
        data = await readBody(response)
        try:
            return response.code, json.loads(data)
        except ValueError:
            return response.code, data

    async def close(self) -> None:
        await cast(Any, self._pool.closeCachedConnections())


@implementer(IBodyProducer)
class BodyProducer:
    """The body of a request, from bytes."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.length: Any = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self.body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass
