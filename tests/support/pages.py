"""A server of web pages on loopback."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support.network import ca_file, reactor, server_tls


@dataclass
class Sent:
    """An answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class PageAsked:
    """A request that came."""

    path: str
    headers: dict[str, str]


class Pages:
    """Listens on localhost until the test ends. What was not put is not found; None hangs."""

    def __init__(self, test: TestCase, *, tls: bool = False) -> None:
        self.asked: list[PageAsked] = []
        self.host = "localhost"
        self._scheme = "https" if tls else "http"
        self._answers: dict[str, Sent | None] = {}
        resource: Any = _Everything(self)
        site: Any = Site(resource)
        if tls:
            port = reactor.listenSSL(0, site, server_tls(), interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.port: int = port.getHost().port
        test.addCleanup(self._stop, port, site)

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}:{self.port}"

    @staticmethod
    def trust() -> dict[str, Any]:
        """The section `outgoing_http` of a homeserver that trusts the certificate."""
        return {"ca_files": [str(ca_file())]}

    def put(self, path: str, answer: Sent | str | bytes | None, kind: str = "text/html") -> None:
        """What a path (as in a request, without query) is answered with."""
        if isinstance(answer, str):
            answer = Sent(200, {"Content-Type": f"{kind}; charset=utf-8"}, answer.encode())
        elif isinstance(answer, bytes):
            answer = Sent(200, {"Content-Type": kind}, answer)
        self._answers[path] = answer

    def answer(self, path: str) -> Sent | None:
        return self._answers.get(path.partition("?")[0], Sent(404))

    def _stop(self, port: Any, site: Any) -> Deferred[Any]:
        stopped = maybeDeferred(port.stopListening)
        for channel in list(getattr(site, "_open", [])):
            channel.abortConnection()
        return stopped


class _Everything(Resource):
    isLeaf = True

    def __init__(self, pages: Pages) -> None:
        super().__init__()
        self._pages = pages

    def render(self, request: Any) -> Any:
        headers = {
            name.decode().lower(): values[-1].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        path = request.uri.decode()
        self._pages.asked.append(PageAsked(path, headers))
        answer = self._pages.answer(path)
        if answer is None:
            return NOT_DONE_YET
        request.setResponseCode(answer.status)
        for name, value in answer.headers.items():
            request.setHeader(name.encode(), value.encode())
        return answer.body
