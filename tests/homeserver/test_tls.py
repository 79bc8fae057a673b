"""TLS of listeners."""

from __future__ import annotations

from pathlib import Path

import trustme
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from config.model import Tls
from homeserver.startup import CannotStart
from homeserver.tls import ServerTls

ADDRESS = IPv4Address("TCP", "127.0.0.1", 1)


class ServerTlsTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.files = Tls(certificate=self.directory / "c.pem", private_key=self.directory / "k.pem")
        self.write(trustme.CA().issue_cert("localhost"))

    def write(self, issued: trustme.LeafCert) -> None:
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.files.certificate.write_bytes(chain)
        self.files.private_key.write_bytes(issued.private_key_pem.bytes())

    def fails(self) -> str:
        return str(self.assertRaises(CannotStart, ServerTls, self.files))

    def test_missing_files(self) -> None:
        self.files.private_key.unlink()
        self.assertIn(f"Cannot read {self.files.private_key}: No such file", self.fails())

    def test_not_a_certificate(self) -> None:
        self.files.certificate.write_text("nonsense")
        self.assertIn(f"Cannot use the certificate {self.files.certificate}", self.fails())

    def test_a_key_of_another_certificate(self) -> None:
        other = trustme.CA().issue_cert("localhost")
        self.files.private_key.write_bytes(other.private_key_pem.bytes())
        self.assertIn(str(self.files.private_key), self.fails())

    def test_a_bad_renewal_keeps_the_old_certificate(self) -> None:
        tls = ServerTls(self.files)
        before = tls.serverConnectionForTLS(None).get_context()
        self.files.certificate.write_text("nonsense")
        self.assertRaises(CannotStart, tls.reload)
        self.assertIs(tls.serverConnectionForTLS(None).get_context(), before)
        self.write(trustme.CA().issue_cert("localhost"))
        tls.reload()
        self.assertIsNot(tls.serverConnectionForTLS(None).get_context(), before)

    def test_who_is_not_wanted_is_not_kept(self) -> None:
        """As where there are too many connections: there is nothing to speak TLS in front of."""
        wanted = Factory.forProtocol(Protocol)
        tls = ServerTls(self.files).wrap(wanted)
        self.assertIsNotNone(tls.buildProtocol(ADDRESS))
        self.patch(wanted, "buildProtocol", lambda _: None)
        self.assertIsNone(tls.buildProtocol(ADDRESS))
