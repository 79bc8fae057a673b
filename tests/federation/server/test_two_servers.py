"""One homeserver asks another for its keys, over TLS on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
import trustme
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase

from federation.client.keyring import Keyring
from federation.client.signer import RequestSigner
from federation.server.authenticate import SignatureAuthenticator
from homeserver import startup
from homeserver.core.signing import verify_json
from homeserver.web.http import HttpFactory
from homeserver.web.request import Request
from tests.support.server import SERVER_NAME, TestServer, make_server
from tests.support.services import free_port

reactor: Any = installed_reactor


class TwoServersTest(TestCase):
    async def prepare(self) -> tuple[TestServer, TestServer]:
        """A server that listens, and another that trusts its certificate."""
        port = free_port()
        authority = trustme.CA()
        ca_file = Path(self.mktemp()).resolve()
        authority.cert_pem.write_to_path(str(ca_file))
        asked = await make_server(self, server_name=f"localhost:{port}")
        factory = HttpFactory(asked.homeserver.router, clock=reactor, log=structlog.get_logger())
        pem = authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
        certificate: Any = PrivateCertificate
        options = certificate.loadPEM(pem).options()
        listening = reactor.listenSSL(port, factory, options, interface="127.0.0.1")
        self.addCleanup(factory.stop)  # the last one added runs first
        self.addCleanup(lambda: maybeDeferred(listening.stopListening))
        asking = await make_server(
            self,
            federation={"ca_files": [str(ca_file)], "allowed_ip_ranges": ["127.0.0.0/8"]},
        )
        return asked, asking

    async def test_keys_and_signatures(self) -> None:
        """Shows KEY-9, KEY-10, KEY-11, KEY-13."""
        asked, asking = await self.prepare()
        name = asked.homeserver.config.server_name
        (key,) = startup.load_signing_keys(asked.homeserver.config)
        _, body = await asking.client.get(f"/_matrix/key/v2/query/{name}")
        (answer,) = body["server_keys"]
        self.assertEqual(set(answer["signatures"]), {name, SERVER_NAME})
        verify_json(answer, name, key.key_id, key.verify_key)

        path = "/_matrix/federation/v1/send/1"
        header = RequestSigner(name, key).authorization("PUT", path, SERVER_NAME, b"{}")
        request = Request("PUT", path, {b"authorization": header.encode()}, b"{}")
        keyring = asking.homeserver.services[Keyring]
        authenticator = SignatureAuthenticator(keyring, SERVER_NAME)
        self.assertEqual(await authenticator.authenticate(request), name)
