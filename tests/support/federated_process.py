"""Server processes that other servers reach, several of them under one name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from tests.support.network import authority, ca_file, reactor
from tests.support.process import ServerProcess
from tests.support.services import free_port


class FederatedProcess(ServerProcess):
    """A server process with a port for other servers, of the server `name`."""

    def __init__(self, directory: Path, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(directory, options)
        self.name = name
        self.federation_port = free_port()
        chain, key = self.directory / "chain.pem", self.directory / "key.pem"
        certificate = authority().issue_cert("localhost")
        chain.write_bytes(certificate.cert_chain_pems[0].bytes())
        key.write_bytes(certificate.private_key_pem.bytes())
        self.options |= {
            "server_name": name,
            "federation": {
                "ca_files": [str(ca_file())],
                "allowed_ip_ranges": ["127.0.0.0/8"],
                **self.options.get("federation", {}),
            },
            "listeners": [
                {"port": self.port},
                {"port": self.own_port, "serves": ["metrics", "health"]},
                {
                    "address": "127.0.0.1",
                    "port": self.federation_port,
                    "serves": ["federation"],
                    "tls": {"certificate": str(chain), "private_key": str(key)},
                },
            ],
        }


class Front:
    """The port of a server's name: connections go to its processes in turn, past dead ones."""

    def __init__(self) -> None:
        self.port = free_port()
        self.name = f"localhost:{self.port}"
        self.processes: list[FederatedProcess] = []
        self._turn: Any = None
        self._listening: Any = None
        self._open: set[Protocol] = set()

    def serve(self, *processes: FederatedProcess) -> None:
        """Begin with these processes."""
        self.processes = list(processes)
        self._turn = cycle(processes)
        self.listen()

    def listen(self) -> None:
        """Let others in."""
        self._listening = reactor.listenTCP(
            self.port, Factory.forProtocol(lambda: _Near(self)), interface="127.0.0.1"
        )

    async def close(self) -> None:
        """Let nobody in, and end what is open."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        for near in list(self._open):
            near.transport.abortConnection()  # type: ignore[union-attr]

    def begun(self, near: Protocol) -> None:
        self._open.add(near)

    def ended(self, near: Protocol) -> None:
        self._open.discard(near)

    def next_port(self) -> int:
        """The port of the process whose turn it is."""
        found: FederatedProcess = next(self._turn)
        return found.federation_port


class _Far(Protocol):
    def __init__(self, near: _Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        self.near.joined(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.near.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.near.transport.loseConnection()  # type: ignore[union-attr]


class _Connector(ClientFactory):
    noisy = False

    def __init__(self, near: _Near) -> None:
        self.near = near

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Far(self.near)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.near.try_next()


class _Near(Protocol):
    """A connection of another server."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._tries = len(front.processes)
        self._early: list[bytes] = []
        self._far: Any = None

    def connectionMade(self) -> None:
        self._front.begun(self)
        self.try_next()

    def try_next(self) -> None:
        if not self._tries:
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        self._tries -= 1
        reactor.connectTCP("127.0.0.1", self._front.next_port(), _Connector(self))

    def joined(self, far: Any) -> None:
        self._far = far
        for data in self._early:
            far.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self._far is None:
            self._early.append(data)
        else:
            self._far.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._front.ended(self)
        if self._far is not None:
            self._far.loseConnection()


class Client:
    """A user's client, for threads: it asks the next process when one is gone."""

    def __init__(self, processes: list[FederatedProcess], token: str, user_id: str) -> None:
        self._processes = processes
        self._token = token
        self.user_id = user_id

    @classmethod
    def registered(cls, processes: list[FederatedProcess], name: str) -> Client:
        """A client of a new user."""
        found = cls(processes, "", "")
        body = {"username": name, "password": "wonderland", "auth": {"type": "m.login.dummy"}}
        answer = found.ok("POST", "/register", body)
        return cls(processes, answer["access_token"], answer["user_id"])

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer; asked until a process gives one, the last used first."""
        url = f"/_matrix/client/v3{path}"
        for _ in range(600):
            process = self._processes[0]
            try:
                status, text = process.request(method, url, body, self._token)
            except (OSError, HTTPException):
                self._processes = [*self._processes[1:], process]
                if len(self._processes) == 1 or process is self._processes[0]:
                    _nap()
                continue
            return status, json.loads(text)
        raise AssertionError(f"nobody answers {method} {path}")

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request that must succeed."""
        status, answer = self.call(method, path, body)
        if status != 200:
            raise AssertionError(f"{method} {path} answered {status}: {answer}")
        return answer

    def send(self, room_id: str, body: str) -> str:
        """Send a message; its ID. The transaction ID is the text."""
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{quote(body, safe='')}"
        event_id: str = self.ok("PUT", path, {"msgtype": "m.text", "body": body})["event_id"]
        return event_id

    def members(self, room_id: str) -> dict[str, str]:
        """Memberships of a room."""
        chunk = self.ok("GET", f"/rooms/{quote(room_id)}/members")["chunk"]
        return {each["state_key"]: each["content"]["membership"] for each in chunk}

    def state(self, room_id: str) -> dict[tuple[str, str], str]:
        """The current state of a room: event IDs."""
        found = self.ok("GET", f"/rooms/{quote(room_id)}/state")
        return {(each["type"], each["state_key"]): each["event_id"] for each in found}

    def messages(self, room_id: str) -> list[str]:
        """What was said in a room, oldest first, read back to its beginning."""
        found: list[str] = []
        token = ""
        while True:
            path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=500{token}"
            answer = self.ok("GET", path)
            events = [each for each in answer["chunk"] if each["type"] == "m.room.message"]
            found += (each["content"]["body"] for each in events)
            if "end" not in answer:
                return found[::-1]
            token = f"&from={answer['end']}"


def _nap() -> None:
    import time

    time.sleep(0.05)
