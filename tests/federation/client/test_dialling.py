"""TLS to one address: how connecting ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from federation.client.dialling import dial
from federation.client.tls import TlsTrust
from tests.support.network import ca_file


class _Transport(StringTransport):
    is_aborted = False

    def abortConnection(self) -> None:
        self.is_aborted = True
        super().abortConnection()


class DiallingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.made: list[Protocol] = []

        def make() -> Protocol:
            self.made.append(Protocol())
            return self.made[-1]

        creator = TlsTrust(ca_files=[ca_file()]).connections_to("a.example")
        factory: Any = Factory.forProtocol(make)
        self.dialled: Any = dial(self.reactor, "1.2.3.4", 8448, 10.0, creator, factory)
        (self.asked,) = self.reactor.tcpClients
        self.factory: Any = self.asked[2]

    def connect(self) -> _Transport:
        transport = _Transport()
        self.factory.buildProtocol(None).makeConnection(transport)
        return transport

    def test_connected(self) -> None:
        """It fires with TCP, and the handshake has begun."""
        self.assertEqual((self.asked[:2], self.asked[3]), (("1.2.3.4", 8448), 10.0))
        self.assertNoResult(self.dialled)
        transport = self.connect()
        self.assertEqual([self.successResultOf(self.dialled)], self.made)
        self.assertIn(b"a.example", transport.value())
        self.assertFalse(transport.is_aborted)

    def test_refused(self) -> None:
        reason: Any = Failure(ConnectionRefusedError())
        self.factory.clientConnectionFailed(self.reactor.connectors[0], reason)
        self.failureResultOf(self.dialled, ConnectionRefusedError)

    def test_cancelled(self) -> None:
        self.dialled.cancel()
        self.failureResultOf(self.dialled, CancelledError)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        # Stopping is told as a failure, too; and it may have come too late.
        reason: Any = Failure(ConnectionRefusedError())
        self.factory.clientConnectionFailed(self.reactor.connectors[0], reason)
        self.assertTrue(self.connect().is_aborted)
