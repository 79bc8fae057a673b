"""A network of servers in one process: loopback TLS with a CA of its own, and cuts."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor as installed_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from storage.database import sleep
from tests.support.databases import scratch_directory

reactor: Any = installed_reactor


@functools.cache
def authority() -> trustme.CA:
    """The certificate authority of the tests of this process."""
    return trustme.CA()


@functools.cache
def ca_file() -> Path:
    """The authority's certificate as a PEM file, which is removed when the process ends."""
    with tempfile.NamedTemporaryFile(
        dir=scratch_directory(), suffix=".pem", delete=False
    ) as written:
        written.write(authority().cert_pem.bytes())
    return Path(written.name)


@functools.cache
def server_tls(host: str = "localhost") -> Any:
    """Options for `listenSSL`, with a certificate of the authority for `host`."""
    pem = authority().issue_cert(host).private_key_and_cert_chain_pem.bytes()
    certificate: Any = PrivateCertificate
    return certificate.loadPEM(pem).options()


class Network:
    """Which servers reach which. Servers are known by their names; all are up at first.

    A cut ends the connections that are open and refuses new ones, in the direction in which
    requests are made: with `cut("a", "b")` a cannot ask b, while b asks a as before.
    """

    def __init__(self) -> None:
        self._cuts: set[tuple[str, str]] = set()
        self._ports: dict[int, str] = {}
        self._open: dict[Any, tuple[str, str]] = {}

    def add(self, name: str, port: int) -> None:
        """The server `name` listens on `port`."""
        self._ports[port] = name

    def reactor_of(self, name: str) -> Any:
        """The reactor through which the server `name` is to make its connections."""
        return _CuttingReactor(self, name)

    def cut(self, source: str, target: str) -> None:
        """Requests of `source` reach `target` no more."""
        self._cuts.add((source, target))
        for connector, pair in list(self._open.items()):
            if pair == (source, target):
                connector.abort()

    def heal(self, source: str, target: str) -> None:
        self._cuts.discard((source, target))

    def heal_all(self) -> None:
        self._cuts.clear()

    def connect(self, source: str, host: str, port: int, factory: Any, rest: Any) -> Any:
        """As `connectTCP`, unless the pair is cut."""
        pair = (source, self._ports.get(port, f"{host}:{port}"))
        if pair in self._cuts:
            return _Refused(host, port, factory)
        watched = _Watched(factory, self._open, pair)
        return reactor.connectTCP(host, port, watched, *rest[0], **rest[1])


class OfflineReactor:
    """The installed reactor, without datagrams: no test asks a name server."""

    def __init__(self) -> None:
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def listenUDP(self, port: int, *args: Any, **options: Any) -> Any:
        raise CannotListenError("", port, "tests ask no name servers")


class _CuttingReactor(OfflineReactor):
    """An offline reactor with TCP connections by way of a network."""

    def __init__(self, network: Network, name: str) -> None:
        super().__init__()
        self._network = network
        self._name = name

    def connectTCP(self, host: str, port: int, factory: Any, *args: Any, **options: Any) -> Any:
        return self._network.connect(self._name, host, port, factory, (args, options))


class _Refused:
    """The connector of a connection that a cut refuses."""

    def __init__(self, host: str, port: int, factory: Any) -> None:
        self._address = IPv4Address("TCP", host, port)
        factory.doStart()
        factory.startedConnecting(self)
        failure = Failure(ConnectionRefusedError("cut by the test"))
        self._failing = reactor.callLater(0, self._fail, factory, failure)

    def _fail(self, factory: Any, failure: Failure) -> None:
        factory.clientConnectionFailed(self, failure)
        factory.doStop()

    def getDestination(self) -> IPv4Address:
        return self._address

    def stopConnecting(self) -> None:
        pass

    def disconnect(self) -> None:
        pass


class _Watched:
    """A client factory that keeps note of the connections that are open."""

    def __init__(self, factory: Any, connections: dict[Any, tuple[str, str]], pair: Any) -> None:
        self._factory = factory
        self._connections = connections
        self._pair = pair
        directlyProvides(self, providedBy(factory))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def buildProtocol(self, address: Any) -> Any:
        protocol = self._factory.buildProtocol(address)
        if protocol is not None:
            _watch(protocol, self._connections, self._pair)
        return protocol


def _watch(protocol: Any, connections: dict[Any, tuple[str, str]], pair: Any) -> None:
    made, lost = protocol.makeConnection, protocol.connectionLost

    def make_connection(transport: Any) -> None:
        connections[_Abort(transport, protocol)] = pair
        made(transport)

    def connection_lost(reason: Any) -> None:
        for connection in [each for each in connections if each.protocol is protocol]:
            del connections[connection]
        lost(reason)

    protocol.makeConnection = make_connection
    protocol.connectionLost = connection_lost


class _Abort:
    def __init__(self, transport: Any, protocol: Protocol) -> None:
        self.transport = transport
        self.protocol = protocol

    def abort(self) -> None:
        self.transport.abortConnection()


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], what: str = "", within: float = 20.0
) -> Any:
    """Wait until `condition` (maybe a coroutine function) gives something true; returns that.

    Raises AssertionError after `within` seconds, with `what` or what the condition raised last:
    a condition may raise AssertionError while it does not hold.
    """
    start = reactor.seconds()
    while True:
        fault: AssertionError | None = None
        try:
            result = condition()
            if isawaitable(result):
                result = await result
            if result:
                return result
        except AssertionError as error:
            fault = error
        waited = reactor.seconds() - start
        if waited > within:
            raise AssertionError(
                f"not within {within:g} s: {what or fault or condition}"
            ) from fault
        # What takes long is not held up by being looked at.
        await sleep(reactor, min(max(0.05, waited / 10), 0.5))
