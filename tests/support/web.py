"""An HTTPS server with scripted answers, for what asks web servers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support.network import ca_file, reactor, server_tls


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


class WebServer:
    """Listens on localhost until the test ends. `answers` are given in turn, the last for ever:
    status and JSON, or bytes, and maybe headers; None is no answer at all; of a function, what it
    returns for the request."""

    def __init__(self, test: TestCase, *answers: Any) -> None:
        self.asked: list[Asked] = []
        self.answers = list(answers) or [(200, {})]
        resource: Any = _Everything(self)
        site: Any = Site(resource)
        port = reactor.listenSSL(0, site, server_tls(), interface="127.0.0.1")
        self.name = f"localhost:{port.getHost().port}"
        test.addCleanup(self._stop, port, site)

    @property
    def url(self) -> str:
        return f"https://{self.name}"

    @staticmethod
    def trust(**more: Any) -> dict[str, Any]:
        """The section `outgoing_http` of a homeserver that may ask this."""
        return {
            "ca_files": [str(ca_file())],
            "allowed_ip_ranges": ["127.0.0.0/8", "::1/128"],
            **more,
        }

    def _stop(self, port: Any, site: Any) -> Deferred[Any]:
        stopped = maybeDeferred(port.stopListening)
        for channel in list(getattr(site, "_open", [])):
            channel.abortConnection()
        return stopped


class _Everything(Resource):
    isLeaf = True

    def __init__(self, server: WebServer) -> None:
        super().__init__()
        self._server = server

    def render(self, request: Any) -> Any:
        headers = {
            name.decode().lower(): values[-1].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        asked = Asked(
            request.method.decode(), request.uri.decode(), headers, request.content.read()
        )
        server = self._server
        server.asked.append(asked)
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        if callable(answer):
            answer = answer(asked)
        if answer is None:
            return NOT_DONE_YET
        status, body, *headers = answer
        for name, value in headers[0].items() if headers else ():
            request.setHeader(name.encode(), value.encode())
        request.setResponseCode(status)
        if isinstance(body, bytes):
            return body
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps(body).encode()
