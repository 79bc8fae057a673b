"""Sessions of TLS are resumed with who proved the name, and with nobody else."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity.hazmat import verify_service_identity
from twisted.trial.unittest import TestCase

from federation.client import tls
from federation.client.tls import SESSION_LIVES_S, TlsTrust
from tests.support.network import authority, ca_file


class _Protocol:
    """What a connection tells of a certificate that is wrong."""

    def __init__(self) -> None:
        self.failures: list[Any] = []

    def failVerification(self, failure: Any) -> None:
        self.failures.append(failure)


class SessionTest(TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.trust = TlsTrust(ca_files=[ca_file()], seconds=lambda: self.now)
        self.checks = 0
        check = verify_service_identity

        def counted(*args: Any) -> Any:
            self.checks += 1
            return check(*args)

        self.patch(tls, "verify_service_identity", counted)

    def server(self, *names: str, version: int = SSL.TLS1_3_VERSION) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(version)
        context.set_session_id(b"test")
        authority().issue_cert(*names).configure_cert(context)
        return context

    def connect(self, name: str, context: SSL.Context) -> bool:
        """Exchange a few bytes; whether a certificate was looked at for that."""
        before = self.checks
        client = self.trust.connections_to(name).clientConnectionForTLS(_Protocol())  # type: ignore[arg-type]
        client.set_connect_state()
        server = SSL.Connection(context, None)
        server.set_accept_state()
        for _ in range(4):
            for mine, other in ((client, server), (server, client)):
                try:
                    mine.do_handshake()
                except SSL.WantReadError:
                    pass
                _carry(mine, other)
        server.send(b"hello")
        _carry(server, client)
        self.assertEqual(client.recv(10), b"hello")
        client.shutdown()
        return self.checks > before

    def test_resumed(self) -> None:
        """With the tickets of both versions of TLS; each session once, the next one after it."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            server = self.server("a.example", version=version)
            looked_at = [self.connect("a.example", server) for _ in range(4)]
            self.assertEqual(looked_at, [True, False, False, False])

    def test_not_by_another_server(self) -> None:
        """Who has the name now, but not the keys of the tickets, shows a certificate."""
        self.assertTrue(self.connect("a.example", self.server("a.example")))
        self.assertTrue(self.connect("a.example", self.server("a.example")))

    def test_not_for_another_name(self) -> None:
        """A server that proved one name has to prove the other one."""
        server = self.server("a.example", "b.example")
        self.assertTrue(self.connect("a.example", server))
        self.assertTrue(self.connect("b.example", server))
        self.assertFalse(self.connect("a.example", server))
        with self.assertRaises(SSL.Error):
            self.connect("c.example", server)
        with self.assertRaises(SSL.Error):
            self.connect("c.example", server)

    def test_not_for_long(self) -> None:
        """However often it was resumed meanwhile."""
        server = self.server("a.example")
        self.assertTrue(self.connect("a.example", server))
        for _ in range(3):
            self.now += SESSION_LIVES_S / 4
            self.assertFalse(self.connect("a.example", server))
        self.now += SESSION_LIVES_S / 4
        self.assertTrue(self.connect("a.example", server))
        self.assertFalse(self.connect("a.example", server))


def _carry(source: SSL.Connection, target: SSL.Connection) -> None:
    try:
        while data := source.bio_read(1 << 16):
            target.bio_write(data)
    except SSL.WantReadError:
        pass
