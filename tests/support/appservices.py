"""Application services for tests: their registration files, and requests in their name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support.client import Client, FullAnswer
from tests.support.network import reactor
from tests.support.server import TestServer

AS_TOKEN = "as-token-of-irc"
HS_TOKEN = "hs-token-of-irc"


def registration(name: str = "irc", **more: Any) -> dict[str, Any]:
    """A registration whose users and aliases begin with `_NAME_`."""
    return {
        "id": name,
        "url": None,
        "as_token": f"as-token-of-{name}",
        "hs_token": f"hs-token-of-{name}",
        "sender_localpart": f"{name}-bot",
        "namespaces": {
            "users": [{"exclusive": True, "regex": f"@_{name}_.*"}],
            "aliases": [{"exclusive": True, "regex": f"#_{name}_.*:hearth\\.test"}],
        },
        **more,
    }


def registration_files(test: TestCase, *registrations: Any) -> list[str]:
    """Files with these registrations."""
    directory = Path(test.mktemp()).resolve()
    directory.mkdir()
    files = []
    for index, each in enumerate(registrations):
        file = directory / f"{index}.yaml"
        text = each if isinstance(each, str) else yaml.safe_dump(each)
        file.write_text(text, encoding="utf-8")
        files.append(str(file))
    return files


class Service:
    """An application service: asks in its own name, or as one of its users."""

    def __init__(self, server: TestServer, name: str = "irc") -> None:
        self.client: Client = server.client.with_token(f"as-token-of-{name}")

    async def call(
        self, method: str, path: str, json: Any = None, *, user: str | None = None, **query: Any
    ) -> FullAnswer:
        """Paths are below /_matrix/client/v3 unless they begin with /_."""
        full = path if path.startswith("/_") else f"/_matrix/client/v3{path}"
        if user is not None:
            query["user_id"] = user
        return await self.client.full(method, full, json, query=query)

    async def register(self, localpart: str, **more: Any) -> FullAnswer:
        """Make an account."""
        body = {"type": "m.login.application_service", "username": localpart, **more}
        return await self.call("POST", "/register", body)


@dataclass
class Told:
    """A request that an application service got."""

    method: str
    path: str
    query: dict[str, str]
    token: str | None
    body: Any


class Bridge:
    """An application service that listens on loopback, by plain HTTP.

    `answers` are called with each request, the first whose answer is not None counts; without one
    transactions and pings are taken, and there is nothing else. `silent`: nothing is answered.
    """

    def __init__(self, test: TestCase) -> None:
        self.told: list[Told] = []
        self.answers: list[Callable[[Told], Any]] = []
        self.silent = False
        resource: Any = _Everything(self)
        self._site: Any = Site(resource)
        self._listen(0)
        test.addCleanup(self.stop)

    def _listen(self, port: int) -> None:
        self._port: Any = reactor.listenTCP(port, self._site, interface="127.0.0.1")
        self.number = self._port.getHost().port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    def stop(self) -> Deferred[Any]:
        """Be away."""
        port, self._port = self._port, None
        stopped = maybeDeferred(port.stopListening) if port is not None else succeed(None)
        for channel in list(getattr(self._site, "_open", [])):
            channel.abortConnection()
        return stopped

    def come_back(self) -> None:
        """Listen again, at the same port."""
        self._listen(self.number)

    def transactions(self) -> list[Told]:
        """The transactions that came, repeated ones too."""
        return [each for each in self.told if "/transactions/" in each.path]

    def events(self) -> list[dict[str, Any]]:
        """The events of all transactions, those of repeated ones once."""
        bodies = {each.path.rpartition("/")[2]: each.body for each in self.transactions()}
        return [event for body in bodies.values() for event in body["events"]]

    def ephemeral(self) -> list[dict[str, Any]]:
        """What came besides events."""
        return [each for told in self.transactions() for each in told.body.get("ephemeral", ())]

    def answer(self, told: Told) -> Any:
        self.told.append(told)
        for answer in self.answers:
            found = answer(told)
            if found is not None:
                return found
        if told.method in ("PUT", "POST"):
            return 200, {}
        return 404, {"errcode": "M_NOT_FOUND", "error": "There is none."}


class _Everything(Resource):
    isLeaf = True

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def render(self, request: Any) -> Any:
        path, _, query = request.uri.decode().partition("?")
        header = request.getHeader("authorization") or ""
        content = request.content.read()
        told = Told(
            request.method.decode(),
            path,
            dict(parse_qsl(query)),
            header.removeprefix("Bearer ") or None,
            json.loads(content) if content else None,
        )
        if self._bridge.silent:
            self._bridge.told.append(told)
            return NOT_DONE_YET
        found = self._bridge.answer(told)
        if isinstance(found, Deferred):
            found.addCallback(lambda answer: self._write(request, *answer))
            return NOT_DONE_YET
        status, body = found
        request.setResponseCode(status)
        return body if isinstance(body, bytes) else json.dumps(body).encode()

    def _write(self, request: Any, status: int, body: Any) -> None:
        request.setResponseCode(status)
        request.write(json.dumps(body).encode())
        request.finish()
