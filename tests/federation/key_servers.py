"""Servers that publish keys, and a client that reaches them without a network."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import Unreachable
from homeserver.core.signing import SigningKey, generate_signing_key, sign_json
from homeserver.core.types import JsonObject

HOUR = 3600 * 1000
DAY = 24 * HOUR


def make_key(version: str, seed: int = 1) -> SigningKey:
    """A signing key; the same seed gives the same key."""
    return generate_signing_key(version, bytes([seed]) * 32)


class KeyServer:
    """A server with keys. What it answers is built anew for each request."""

    def __init__(self, name: str, clock: IReactorTime, *keys: SigningKey) -> None:
        self.name = name
        self.clock = clock
        self.keys = list(keys)
        self.old: dict[SigningKey, int] = {}
        self.valid_for = DAY
        self.is_up = True
        self.tamper: Callable[[JsonObject], object] = lambda answer: None
        """Changes the answer after it is signed."""

    def now(self) -> int:
        return int(self.clock.seconds() * 1000)

    def answer(self) -> JsonObject:
        """What it publishes."""
        answer: JsonObject = {
            "server_name": self.name,
            "valid_until_ts": self.now() + self.valid_for,
            "verify_keys": {key.key_id: {"key": key.public_base64} for key in self.keys},
            "old_verify_keys": {
                key.key_id: {"key": key.public_base64, "expired_ts": expired}
                for key, expired in self.old.items()
            },
        }
        for key in self.keys:
            sign_json(answer, self.name, key)
        self.tamper(answer)
        return answer


class FakeKeyClient:
    """A `KeyClient`; `asked` has the requests made: destination and path, or the POST's body."""

    def __init__(self, clock: IReactorTime, *servers: KeyServer) -> None:
        self.clock = clock
        self.servers = {server.name: server for server in servers}
        self.asked: list[tuple[str, Any]] = []
        self.notaries: dict[str, Callable[[JsonObject], JsonObject]] = {}
        self.hold: Deferred[None] | None = None
        """Requests wait for this."""

    def add(self, name: str, *keys: SigningKey) -> KeyServer:
        server = self.servers[name] = KeyServer(name, self.clock, *keys)
        return server

    def add_notary(self, name: str, key: SigningKey, *known: KeyServer) -> KeyServer:
        """A server that passes on what `known` publish, even those that are down."""
        server = self.add(name, key)
        copies = {each.name: each for each in known}

        def query(body: JsonObject) -> JsonObject:
            answers = [copies[n].answer() for n in body["server_keys"] if n in copies]
            return {"server_keys": [sign_json(answer, name, key) for answer in answers]}

        self.notaries[name] = query
        return server

    async def get_json(self, destination: str, path: str, **options: Any) -> JsonObject:
        self.asked.append((destination, path))
        await self._reach(destination)
        return self._sent(self.servers[destination].answer())

    async def post_json(
        self, destination: str, path: str, body: JsonObject, **options: Any
    ) -> JsonObject:
        self.asked.append((destination, copy.deepcopy(body)))
        await self._reach(destination)
        return self._sent(self.notaries[destination](body))

    async def _reach(self, destination: str) -> None:
        if self.hold is not None:
            waiter: Deferred[None] = Deferred()
            self.hold.chainDeferred(waiter)
            await waiter
        if destination not in self.servers or not self.servers[destination].is_up:
            raise Unreachable(destination, "is down")

    def _sent(self, answer: JsonObject) -> JsonObject:
        sent: JsonObject = json.loads(json.dumps(answer))
        return sent
