"""What other servers learn from a whole homeserver: where it is, what runs there, its keys."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase, TestCase

from federation.client.keyring import Keyring
from federation.server.names import Delegation
from homeserver import __version__
from homeserver.core.signing import parse_verify_key, verify_json
from homeserver.startup import CannotStart
from tests.support.server import SERVER_NAME, make_server


class DelegationTest(SynchronousTestCase):
    def test_from_the_base_url(self) -> None:
        for url, server in (
            ("https://matrix.example.org/", "matrix.example.org:443"),
            ("https://matrix.example.org:8448/", "matrix.example.org:8448"),
            ("https://[::1]/", "[::1]:443"),
            ("https://192.0.2.1:80/", "192.0.2.1:80"),
            ("http://matrix.example.org/", None),
            (None, None),
        ):
            self.assertEqual(Delegation.of(url), Delegation(server), url)


class NamesTest(TestCase):
    async def test_version(self) -> None:
        """Shows KEY-16."""
        server = await make_server(self)
        status, body = await server.client.get("/_matrix/federation/v1/version")
        self.assertEqual(status, 200)
        self.assertEqual(body, {"server": {"name": "Hearth", "version": __version__}})

    async def test_well_known(self) -> None:
        server = await make_server(self, public_base_url="https://matrix.hearth.test/")
        answer = await server.client.full("GET", "/.well-known/matrix/server")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.body, {"m.server": "matrix.hearth.test:443"})
        self.assertEqual(answer.headers["content-type"], "application/json")

    async def test_no_well_known(self) -> None:
        server = await make_server(self, public_base_url=None)
        status, body = await server.client.get("/.well-known/matrix/server")
        self.assertEqual((status, body["errcode"]), (404, "M_NOT_FOUND"))


class OwnKeysTest(TestCase):
    async def test_rotation(self) -> None:
        """Shows KEY-10, KEY-15."""
        server = await make_server(self)
        _, before = await server.client.get("/_matrix/key/v2/server")
        (old_id,) = before["verify_keys"]
        file = server.homeserver.config.data_directory / "signing.key"
        new = f"ed25519 new {'A' * 43}"
        file.write_text(f"{new}\n{file.read_text().strip()} expired_ts=1700000000000\n")
        await server.restart()
        _, after = await server.client.get("/_matrix/key/v2/server")
        self.assertEqual(set(after["verify_keys"]), {"ed25519:new"})
        old = {"key": before["verify_keys"][old_id]["key"], "expired_ts": 1700000000000}
        self.assertEqual(after["old_verify_keys"], {old_id: old})
        new_key = parse_verify_key(after["verify_keys"]["ed25519:new"]["key"])
        verify_json(after, SERVER_NAME, "ed25519:new", new_key)
        # What was signed with the old key is still good, but no new request.
        keyring = server.homeserver.services[Keyring]
        found = await keyring.lookup({(SERVER_NAME, old_id): 1600000000000})
        verify_json(before, SERVER_NAME, old_id, found[SERVER_NAME, old_id].verify_key)
        self.assertIsNone(await keyring.key_for_request(SERVER_NAME, old_id))

    async def test_a_notary_on_a_whole_server(self) -> None:
        """Shows KEY-11."""
        server = await make_server(self)
        _, own = await server.client.get("/_matrix/key/v2/server")
        status, body = await server.client.post(
            "/_matrix/key/v2/query", {"server_keys": {SERVER_NAME: {}}}
        )
        self.assertEqual((status, body), (200, {"server_keys": [own]}))


class StartTest(TestCase):
    async def test_a_ca_file_that_cannot_be_read(self) -> None:
        with self.assertRaises(CannotStart) as raised:
            await make_server(self, federation={"ca_files": ["/nonexistent/ca.pem"]})
        self.assertIn("/nonexistent/ca.pem", str(raised.exception))
