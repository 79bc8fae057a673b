"""TLS to one address, without what choosing among several takes.

`HostnameEndpoint` costs about as much as a request when there is nothing to choose.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    ITransport,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure


def dial(
    reactor: Any,
    address: str,
    port: int,
    timeout_s: float,
    creator: IOpenSSLClientConnectionCreator,
    factory: IProtocolFactory,
) -> Deferred[IProtocol]:
    """Connect a protocol of `factory` to an IP address, by TLS.

    The Deferred fires when TCP is connected, and fails with `ConnectError`, after `timeout_s`
    seconds at the latest. The handshake goes on afterwards.
    """
    attempt = _Attempt(creator, factory)
    reactor.connectTCP(address, port, attempt, timeout=timeout_s)
    return attempt.done


class _Tls(TLSMemoryBIOProtocol):
    """Writes at once: a request is one piece, there is nothing to gather."""

    def makeConnection(self, transport: ITransport) -> None:
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        attempt: Any = self.factory
        if not attempt.connected(self.wrappedProtocol):
            self.abortConnection()  # type: ignore[no-untyped-call]


class _Attempt(TLSMemoryBIOFactory):
    protocol = _Tls

    def __init__(self, creator: IOpenSSLClientConnectionCreator, factory: IProtocolFactory) -> None:
        super().__init__(creator, True, factory)
        self._connector: Any = None
        self._is_cancelled = False
        self.done: Deferred[IProtocol] = Deferred(self._cancel)

    def doStart(self) -> None:
        """Nothing to start."""

    def doStop(self) -> None:
        """Nothing to stop."""

    def startedConnecting(self, connector: Any) -> None:
        self._connector = connector

    def connected(self, protocol: IProtocol) -> bool:
        """TCP is connected: whether anybody still wants it."""
        self._connector = None
        if not self._is_cancelled:
            self.done.callback(protocol)
        return not self._is_cancelled

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._connector = None
        # Who cancels is told so, not that connecting was stopped.
        if not self._is_cancelled:
            self.done.errback(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        """The protocol is told."""

    def _cancel(self, done: Deferred[IProtocol]) -> None:
        self._is_cancelled = True
        if self._connector is not None:
            self._connector.stopConnecting()
