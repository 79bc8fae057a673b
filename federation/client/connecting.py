"""Opening connections along a route: names to addresses, guard, happy eyeballs, TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
)
from zope.interface import directlyProvides

from federation.client.dialling import dial
from federation.client.dns import Dns
from federation.client.guard import AddressGuard
from federation.client.names import LookupFailed
from federation.client.route import Endpoint, Route
from federation.client.srv import ordered
from federation.client.tls import TlsTrust

CONNECT_TIMEOUT_S = 10.0
"""For each address, from the first packet to the TCP connection."""

_MAX_ADDRESSES = 8
_MAX_TARGETS = 8


class CannotConnect(Exception):
    """No endpoint of a route could be connected to; the message says why for each."""


class Connector:
    """Opens connections along routes."""

    def __init__(
        self, reactor: Any, dns: Dns, guard: AddressGuard, tls: TlsTrust, random: Random
    ) -> None:
        """`reactor` provides IReactorTCP and IReactorTime; `random` draws by SRV weights."""
        self._reactor = reactor
        self._dns = dns
        self._guard = guard
        self._tls = tls
        self._random = random

    async def connect(self, route: Route, factory: IProtocolFactory) -> IProtocol:
        """Connect `factory` to the first endpoint that takes it; raises `CannotConnect`.

        The handshake goes on afterwards, and ends the connection if the certificate is wrong.
        """
        try:
            creator = None if route.tls_name is None else self._tls.connections_to(route.tls_name)
        except ValueError as error:
            raise CannotConnect(f"no certificate can be for {route.tls_name}") from error
        faults = []
        for endpoint in ordered(route.endpoints, self._random)[:_MAX_TARGETS]:
            try:
                addresses = await self._addresses(endpoint)
                return await self._to(addresses, endpoint, creator, factory)
            except (CannotConnect, LookupFailed, ConnectError, DNSLookupError, ValueError) as error:
                faults.append(f"{endpoint.host} port {endpoint.port}: {error}")
        raise CannotConnect("; ".join(faults))

    def _to(
        self,
        addresses: list[str],
        endpoint: Endpoint,
        creator: IOpenSSLClientConnectionCreator | None,
        factory: IProtocolFactory,
    ) -> Deferred[IProtocol]:
        """Connect to the address that answers first."""
        if len(addresses) == 1 and creator is not None:
            return dial(
                self._reactor, addresses[0], endpoint.port, CONNECT_TIMEOUT_S, creator, factory
            )
        tcp = HostnameEndpoint(
            _KnownAddresses(self._reactor, addresses),
            endpoint.host,
            endpoint.port,
            timeout=CONNECT_TIMEOUT_S,
        )
        where = tcp if creator is None else wrapClientTLS(creator, tcp)
        return where.connect(factory)

    async def _addresses(self, endpoint: Endpoint) -> list[str]:
        """The addresses of an endpoint that may be connected to; raises `CannotConnect`."""
        if _is_address(endpoint.host):
            found = [endpoint.host]
        else:
            found = await self._dns.addresses(endpoint.host, follow_aliases=not endpoint.from_srv)
        if not found:
            kind = " of its own (the target of an SRV record)" if endpoint.from_srv else ""
            raise CannotConnect(f"has no address{kind}")
        permitted = [address for address in found if self._guard.permits(address)]
        if not permitted:
            raise CannotConnect("its addresses are in ranges that are not permitted")
        return permitted[:_MAX_ADDRESSES]


class _KnownAddresses:
    """A reactor whose names are looked up already: `HostnameEndpoint` connects to just these."""

    def __init__(self, reactor: Any, addresses: Sequence[str]) -> None:
        self.connectTCP = reactor.connectTCP
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        self.nameResolver = self
        self._addresses = addresses
        directlyProvides(self, IReactorPluggableNameResolver)

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int) -> None:
        receiver.resolutionBegan(None)
        for address in self._addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, portNumber))
        receiver.resolutionComplete()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
