"""Many senders at once, and what a room holds afterwards."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.support.process import ServerProcess


class LoadedServer(ServerProcess):
    """A server process that is spoken to in JSON."""

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Status and parsed body of a request."""
        status, text = self.request(method, path, body, token)
        return status, json.loads(text)

    def register(self, name: str) -> str:
        """Register a user; their access token."""
        status, answer = self.call(
            "POST",
            "/_matrix/client/v3/register",
            {"username": name, "password": "wonderland", "auth": {"type": "m.login.dummy"}},
        )
        if status != 200:
            raise AssertionError(f"registering answered {status}: {answer}")
        token: str = answer["access_token"]
        return token


@dataclass
class Acknowledged:
    """What senders were told: event ID by message body; `order` is that of each sender."""

    events: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, body: str, event_id: str) -> None:
        with self.lock:
            self.events[body] = event_id

    def __len__(self) -> int:
        with self.lock:
            return len(self.events)


class Senders:
    """Threads that send numbered messages to a room until told to stop.

    A sender whose server is gone tries the next of `ports`, with the same transaction ID, as a
    client does; it ends when none answers.
    """

    def __init__(
        self, ports: Sequence[int], room_id: str, tokens: Sequence[str], acknowledged: Acknowledged
    ) -> None:
        self._ports = list(ports)
        self._room_id = room_id
        self._acknowledged = acknowledged
        self._stop = threading.Event()
        self.errors: list[Any] = []
        self._threads = [
            threading.Thread(target=self._send, args=(number, token), daemon=True)
            for number, token in enumerate(tokens)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, and wait until all have."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _send(self, sender: int, token: str) -> None:
        ports = self._ports[sender % len(self._ports) :] + self._ports[: sender % len(self._ports)]
        connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=30)
        number, failures = 0, 0
        while not self._stop.is_set():
            body = f"{sender}:{number}"
            path = f"/_matrix/client/v3/rooms/{quote(self._room_id)}/send/m.room.message/t{number}"
            try:
                connection.request(
                    "PUT",
                    path,
                    json.dumps({"msgtype": "m.text", "body": body}),
                    {"Authorization": f"Bearer {token}"},
                )
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException):
                connection.close()
                failures += 1
                if failures > 2 * len(ports):
                    return
                port = ports[failures % len(ports)]
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                continue
            if response.status == 200:
                self._acknowledged.add(body, answer["event_id"])
                number, failures = number + 1, 0
            elif response.status != 503:
                self.errors.append((body, response.status, answer))
                return


def room_of(server: LoadedServer, senders: int) -> tuple[str, list[str]]:
    """A room with this many joined users; its ID and their tokens."""
    tokens = [server.register(f"sender{number}") for number in range(senders)]
    status, made = server.call(
        "POST", "/_matrix/client/v3/createRoom", {"preset": "public_chat"}, tokens[0]
    )
    assert status == 200, made
    for token in tokens[1:]:
        status, answer = server.call(
            "POST", f"/_matrix/client/v3/join/{quote(made['room_id'])}", {}, token
        )
        assert status == 200, answer
    room_id: str = made["room_id"]
    return room_id, tokens


def history(server: LoadedServer, room_id: str, token: str) -> list[tuple[str, str]]:
    """All messages of a room, oldest first: (event ID, body)."""
    found: list[tuple[str, str]] = []
    start = ""
    while True:
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/messages?dir=f&limit=500{start}"
        status, page = server.call("GET", path, token=token)
        assert status == 200, page
        found += [
            (event["event_id"], event["content"]["body"])
            for event in page["chunk"]
            if event["type"] == "m.room.message"
        ]
        if "end" not in page:
            return found
        start = "&from=" + quote(page["end"])


def check(
    fail: Callable[[str], None],
    found: Sequence[tuple[str, str]],
    acknowledged: Acknowledged,
) -> None:
    """Fail unless everything acknowledged is there, once, in each sender's order."""
    bodies = [body for _, body in found]
    if len(set(bodies)) != len(bodies):
        fail("a message is there twice")
    by_body = {body: event_id for event_id, body in found}
    lost = [b for b, event_id in acknowledged.events.items() if by_body.get(b) != event_id]
    if lost:
        fail(
            f"{len(lost)} of {len(acknowledged.events)} acknowledged messages are lost: {lost[:5]}"
        )
    last: dict[str, int] = {}
    for body in bodies:
        sender, _, number = body.partition(":")
        if int(number) <= last.get(sender, -1):
            fail(f"{body} is out of order")
        last[sender] = int(number)
