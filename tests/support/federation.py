"""Several homeservers in the test's process that talk over loopback TLS.

a, b = federation = await make_federation(self)
alice, bob = await a.register("alice"), await b.register("bob")
federation.cut(a, b)            # a's requests no longer reach b
federation.partition([a], [b])  # nor b's a
federation.heal()
await eventually(lambda: ...)
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from config import Config
from homeserver.app import build
from homeserver.web.http import HttpFactory
from tests.support.client import Client
from tests.support.databases import migrated_database, reactor
from tests.support.network import Network, ca_file, eventually, server_tls
from tests.support.server import TestServer, test_config
from tests.support.services import free_port

__all__ = ["FederatedServer", "Federation", "add_server", "eventually", "make_federation"]


@dataclass
class FederatedServer(TestServer):
    """A homeserver that listens; `name` is its server name."""

    __test__ = False
    name: str
    port: int
    network: Network
    _listening: Any = None
    _factory: HttpFactory | None = None
    is_up: bool = field(default=False)

    def listen(self) -> None:
        """Accept requests of other servers."""
        self._factory = HttpFactory(
            self.homeserver.router, clock=reactor, log=structlog.get_logger(), threads=reactor
        )
        self._listening = reactor.listenSSL(
            self.port, self._factory, server_tls(), interface="127.0.0.1"
        )

    async def close(self) -> None:
        """Accept no more requests; those being answered are finished."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        factory, self._factory = self._factory, None
        if factory is not None:
            await factory.stop(5.0)

    async def stop(self) -> None:
        """Stop the homeserver; `start` continues on the same database and directory."""
        if self.is_up:
            self.is_up = False
            await self.close()
            await self.homeserver.stop()

    async def start(self) -> None:
        await self._build(self.homeserver.config)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def _build(self, config: Config) -> None:
        own_reactor = self.network.reactor_of(self.name)
        self.homeserver = await build(config, own_reactor, structlog.get_logger())
        self.client = Client(self.homeserver.router)
        self.is_up = True
        self.listen()


class Federation(list[FederatedServer]):
    """The servers of a test, and what is between them.

    Where a server is asked for, a name does as well (that of a `Peer`, say).
    """

    def __init__(self, servers: Sequence[FederatedServer], network: Network) -> None:
        super().__init__(servers)
        self.network = network

    def cut(self, source: Any, target: Any) -> None:
        """Requests of `source` reach `target` no more; open connections end."""
        self.network.cut(_name(source), _name(target))

    def partition(self, *groups: Collection[Any]) -> None:
        """Nobody reaches anybody of another group."""
        for one, other in itertools.permutations(groups, 2):
            for source, target in itertools.product(one, other):
                self.cut(source, target)

    def heal(self, source: Any = None, target: Any = None) -> None:
        """Undo one cut, or all."""
        if source is None:
            self.network.heal_all()
        else:
            self.network.heal(_name(source), _name(target))


def _name(server: Any) -> str:
    return server if isinstance(server, str) else server.name


async def make_federation(
    test: TestCase,
    count: int = 2,
    *,
    each: Sequence[Mapping[str, Any]] = (),
    **overrides: Any,
) -> Federation:
    """New homeservers that reach each other, each on a database of its own.

    `overrides` are keys of the configuration of all, as for `make_server`; `each` has those of
    the single servers. They are stopped after the test.
    """
    network = Network()
    federation = Federation([], network)
    for number in range(count):
        own = dict(each[number]) if number < len(each) else {}
        await add_server(test, federation, **{**overrides, **own})
    return federation


async def add_server(
    test: TestCase, federation: Federation, /, **overrides: Any
) -> FederatedServer:
    """One homeserver more; see `make_federation`."""
    port = free_port()
    name = f"localhost:{port}"
    reaching = {"ca_files": [str(ca_file())], "allowed_ip_ranges": ["127.0.0.0/8"]}
    settings = {
        "server_name": name,
        **overrides,
        "federation": {**reaching, **overrides.get("federation", {})},
    }
    url = settings.pop("database_url", None) or migrated_database(test)
    config = test_config(Path(test.mktemp()).resolve(), url, **settings)
    federation.network.add(name, port)
    homeserver = await build(config, federation.network.reactor_of(name), structlog.get_logger())
    server = FederatedServer(
        homeserver, Client(homeserver.router), name, port, federation.network, is_up=True
    )
    server.listen()
    test.addCleanup(_stop, server)
    federation.append(server)
    return server


def _stop(server: FederatedServer) -> Any:
    return Deferred.fromCoroutine(server.stop())
