"""An internet in one process: names, addresses and TLS servers of the tests' own making.

Servers listen on loopback under addresses that only the tests' reactor knows; the code under
test sees public addresses, and DNS records that the test wrote.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.trial.unittest import TestCase

from config.model.network import Federation
from federation.client.agent import Agent
from federation.client.dns import Records
from federation.client.requests import FederationClient
from homeserver.core.signing import SigningKey, generate_signing_key

real_reactor: Any = reactor
KEY: SigningKey = generate_signing_key("a1", b"k" * 32)


class FakeDns:
    """Answers from `records`; names in `failing` have name servers that fail."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[dns.RRHeader]] = {}
        self.failing: set[str] = set()
        self.asked: list[tuple[str, int]] = []

    def add(self, name: str, payload: Any, *, question: str | None = None, ttl: int = 300) -> None:
        """A record of `name`, given in answers about `question` (by default `name`)."""
        kind = payload.TYPE if not isinstance(payload, dns.Record_CNAME) else dns.A
        header = dns.RRHeader(name, payload.TYPE, dns.IN, ttl, payload)
        self.records.setdefault((question or name, kind), []).append(header)

    def address(self, name: str, address: str, *, question: str | None = None) -> None:
        kind = dns.Record_A if ip_address(address).version == 4 else dns.Record_AAAA
        self.add(name, kind(address), question=question)

    def srv(self, name: str, target: str, port: int, priority: int = 0, weight: int = 0) -> None:
        self.add(name, dns.Record_SRV(priority, weight, port, target))

    def lookupAddress(self, name: str) -> Deferred[Records]:
        return self._answer(name, dns.A)

    def lookupIPV6Address(self, name: str) -> Deferred[Records]:
        return self._answer(name, dns.AAAA)

    def lookupService(self, name: str) -> Deferred[Records]:
        return self._answer(name, dns.SRV)

    def _answer(self, name: str, kind: int) -> Deferred[Records]:
        self.asked.append((name, kind))
        if name in self.failing:
            return fail(DNSServerError())
        found = self.records.get((name, kind))
        return fail(DNSNameError()) if found is None else succeed((found, [], []))


class _Connecting:
    """A connection that nobody answers."""

    def __init__(self, factory: Any) -> None:
        factory.startedConnecting(self)

    def getDestination(self) -> None:
        return None

    def stopConnecting(self) -> None:
        pass


class MappedReactor:
    """The real reactor, but (address, port) pairs lead to ports of loopback."""

    def __init__(self) -> None:
        self.ports: dict[tuple[str, int], int] = {}
        self.connected: list[tuple[str, int]] = []
        self.silent: set[str] = set()

    def connectTCP(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        self.connected.append((host, port))
        if host in self.silent:
            return _Connecting(args[0])
        # Port 1 of loopback refuses.
        mapped = self.ports.get((host, port), 1)
        return real_reactor.connectTCP("127.0.0.1", mapped, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(real_reactor, name)


@dataclass
class Received:
    """A request as it came; header names in lower case."""

    method: str
    uri: str
    headers: dict[str, str]
    body: bytes
    sni: str | None


@dataclass
class Peer:
    """A TLS server: gives `answers` by URI (or under "*"), the raw bytes of each."""

    answers: dict[str, bytes | Callable[[Any], None]] = field(default_factory=dict)
    requests: list[Received] = field(default_factory=list)
    connections: list[Any] = field(default_factory=list)
    open: list[Any] = field(default_factory=list)
    lost: Deferred[None] = field(default_factory=Deferred)
    """Fires when a connection has ended."""


def response(
    body: bytes, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of an HTTP answer with a body."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class PeerProtocol(Protocol):
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.buffer = b""

    def connectionMade(self) -> None:
        self.peer.connections.append(self.transport)
        self.peer.open.append(self.transport)

    def connectionLost(self, reason: Any = None) -> None:
        self.peer.open.remove(self.transport)
        if not self.peer.lost.called:
            self.peer.lost.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            length = int(headers.get("content-length", "0"))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, uri, _ = first.split(" ")
            transport: Any = self.transport
            sni = transport.getHandle().get_servername()
            self.peer.requests.append(
                Received(method, uri, headers, rest[:length], sni and sni.decode())
            )
            missing = response(b'{"errcode":"M_UNRECOGNIZED"}', "404 Not Found")
            answer = self.peer.answers.get(uri, self.peer.answers.get("*", missing))
            if callable(answer):
                answer(transport)
            else:
                transport.write(answer)


class Network:
    """The names and servers of one test."""

    def __init__(self, test: TestCase) -> None:
        self.test = test
        self.ca = trustme.CA()
        self.dns = FakeDns()
        self.reactor = MappedReactor()
        ca_file = Path(test.mktemp()).absolute()
        ca_file.write_bytes(self.ca.cert_pem.bytes())
        self.config = Federation(ca_files=(ca_file,))

    def listen(self, address: str, port: int, *names: str, ca: trustme.CA | None = None) -> Peer:
        """A server at `address` and `port` with a certificate for `names`."""
        issued = (ca or self.ca).issue_cert(*names)
        pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
        certificate = PrivateCertificate.loadPEM(pem)
        options = CertificateOptions(
            privateKey=certificate.privateKey.original,
            certificate=certificate.original,
            enableSessionTickets=True,
        )
        peer = Peer()
        factory: Any = Factory.forProtocol(lambda: PeerProtocol(peer))
        factory.noisy = False
        listening = real_reactor.listenSSL(0, factory, options, interface="127.0.0.1")

        def stop() -> Any:
            for connection in list(peer.open):
                connection.abortConnection()
            return listening.stopListening()

        self.test.addCleanup(stop)
        self.reactor.ports[address, port] = listening.getHost().port
        return peer

    def agent(self, **config: Any) -> Agent:
        """An agent in this network, closed after the test."""
        agent = Agent(
            self.reactor,
            replace(self.config, **config),
            dns=self.dns,
            random=random.Random(1),
        )
        self.test.addCleanup(lambda: Deferred.fromCoroutine(agent.close()))
        return agent

    def client(self, **config: Any) -> FederationClient:
        """A client of `us.example` in this network."""
        return FederationClient("us.example", KEY, self.agent(**config), real_reactor)
