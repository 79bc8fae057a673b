"""Versions, capabilities, well-known files, TURN and OpenID."""

from __future__ import annotations

import base64
import hashlib
import hmac

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

import config
from homeserver.api.client.well_known import Contact, WellKnown
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.users.turn import Turn
from tests.support.server import make_server
from tests.support.users import make_user_server

V3 = "/_matrix/client/v3"
USERINFO = "/_matrix/federation/v1/openid/userinfo"


class VersionsTest(TestCase):
    async def test_versions(self) -> None:
        """Shows CAP-1."""
        server = await make_user_server(self)
        status, answer = await server.client.get("/_matrix/client/versions")
        self.assertEqual(status, 200)
        for version in ("r0.0.1", "r0.6.1", "v1.1", "v1.11"):
            self.assertIn(version, answer["versions"])
        expired = await server.client.with_token("nonsense").get("/_matrix/client/versions")
        self.assertEqual(expired, (200, answer))

    async def test_merged_proposals(self) -> None:
        """Shows CAP-2: profile fields came with 1.16, which is not advertised."""
        server = await make_user_server(self)
        _, answer = await server.client.get("/_matrix/client/versions")
        self.assertNotIn("v1.16", answer["versions"])
        self.assertIs(answer["unstable_features"]["uk.tcpip.msc4133.stable"], True)


class CapabilitiesTest(TestCase):
    async def test_capabilities(self) -> None:
        """Shows CAP-3, CAP-4, CAP-5."""
        server = await make_user_server(self)
        alice = await server.add_user()
        _, answer = await alice.client.get(f"{V3}/capabilities")
        found = answer["capabilities"]
        self.assertEqual(found["m.room_versions"]["default"], "12")
        self.assertEqual(set(found["m.room_versions"]["available"]), set(ROOM_VERSIONS))
        self.assertLessEqual(
            set(found["m.room_versions"]["available"].values()), {"stable", "unstable"}
        )
        enabled = {name: each["enabled"] for name, each in found.items() if "enabled" in each}
        self.assertEqual(
            enabled,
            {
                "m.change_password": True,
                "m.set_displayname": True,
                "m.set_avatar_url": True,
                "m.profile_fields": True,
                "m.3pid_changes": False,
                "m.get_login_token": True,
                "m.forget_forced_upon_leave": False,
                "org.matrix.msc3720.account_status": True,
            },
        )

    async def test_needs_login(self) -> None:
        """Shows CAP-3."""
        server = await make_user_server(self)
        status, answer = await server.client.get(f"{V3}/capabilities")
        self.assertEqual((status, answer["errcode"]), (401, "M_MISSING_TOKEN"))


class WellKnownTest(TestCase):
    async def test_client(self) -> None:
        """Shows CAP-6."""
        for url in ("https://matrix.hearth.test", "https://matrix.hearth.test/"):
            server = await make_user_server(self, discovery=WellKnown(url))
            _, answer = await server.client.get("/.well-known/matrix/client")
            self.assertEqual(answer, {"m.homeserver": {"base_url": url}})

    async def test_support(self) -> None:
        """Shows CAP-7."""
        contact = Contact("m.role.admin", email_address="admin@hearth.test")
        page = "https://hearth.test/help"
        for discovery, expected in (
            (
                WellKnown(contacts=[contact]),
                {"contacts": [{"role": "m.role.admin", "email_address": "admin@hearth.test"}]},
            ),
            (WellKnown(support_page=page), {"support_page": page}),
        ):
            server = await make_user_server(self, discovery=discovery)
            _, answer = await server.client.get("/.well-known/matrix/support")
            self.assertEqual(answer, expected)

    async def test_not_configured(self) -> None:
        """Shows CAP-6, CAP-7."""
        server = await make_user_server(self)
        for name in ("client", "support"):
            status, answer = await server.client.get(f"/.well-known/matrix/{name}")
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))


class TurnTest(TestCase):
    async def test_credentials(self) -> None:
        """Shows CAP-8."""
        clock = Clock()
        clock.advance(1_700_000_000)
        uris = ["turn:turn.hearth.test?transport=udp"]
        turn = Turn(clock, uris=uris, shared_secret="secret", lifetime_ms=3_600_000)
        server = await make_user_server(self, clock=clock, turn=turn)
        alice = await server.add_user()
        _, answer = await alice.client.get(f"{V3}/voip/turnServer")
        username = f"1700003600:{alice.user_id}"
        digest = hmac.new(b"secret", username.encode(), hashlib.sha1).digest()
        self.assertEqual(
            answer,
            {
                "username": username,
                "password": base64.b64encode(digest).decode(),
                "uris": uris,
                "ttl": 3600,
            },
        )

    async def test_without_turn(self) -> None:
        """Shows CAP-8."""
        server = await make_user_server(self)
        alice = await server.add_user()
        self.assertEqual(await alice.client.get(f"{V3}/voip/turnServer"), (200, {}))


class PolicyServerTest(TestCase):
    async def test_key(self) -> None:
        """The key of a policy server under this name is told, if there is one."""
        path = "/.well-known/matrix/policy_server"
        key = "6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s"
        server = await make_server(self, policy_server={"ed25519": key})
        answer = await server.client.full("GET", path)
        self.assertEqual((answer.status, answer.body), (200, {"public_keys": {"ed25519": key}}))
        self.assertEqual(answer.headers["access-control-allow-origin"], "*")
        server = await make_server(self)
        status, body = await server.client.get(path)
        self.assertEqual((status, body["errcode"]), (404, "M_NOT_FOUND"))
        for wrong in ("", "x", key + "=", key[:-4], "ä" * 43):
            with self.assertRaises(config.ConfigError):
                config.from_dict({"server_name": "a", "policy_server": {"ed25519": wrong}})


class OpenIdTest(TestCase):
    async def test_token(self) -> None:
        """Shows CAP-9."""
        server = await make_user_server(self)
        alice = await server.add_user()
        path = f"{V3}/user/{alice.user_id}/openid/request_token"
        status, answer = await alice.client.post(path, {})
        self.assertEqual(status, 200)
        token = answer.pop("access_token")
        self.assertEqual(
            answer,
            {"token_type": "Bearer", "matrix_server_name": "hearth.test", "expires_in": 3600},
        )
        query = {"access_token": token}
        for _ in range(2):
            found = await server.client.get(USERINFO, query=query)
            self.assertEqual(found, (200, {"sub": alice.user_id}))
        whoami = await server.client.with_token(token).get(f"{V3}/account/whoami")
        self.assertEqual(whoami.status, 401)
        server.clock.advance(3600)
        status, answer = await server.client.get(USERINFO, query=query)
        self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))

    async def test_refused(self) -> None:
        """Shows CAP-9."""
        server = await make_user_server(self)
        alice = await server.add_user()
        status, answer = await server.client.get(USERINFO, query={"access_token": alice.token})
        self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))
        path = f"{V3}/user/@bob:hearth.test/openid/request_token"
        status, answer = await alice.client.post(path, {})
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        path = f"{V3}/user/{alice.user_id}/openid/request_token"
        self.assertEqual((await alice.client.post(path, [])).body["errcode"], "M_BAD_JSON")
        self.assertEqual((await alice.client.post(path)).status, 200)

    async def test_ends_with_the_account(self) -> None:
        server = await make_user_server(self)
        alice = await server.add_user()
        path = f"{V3}/user/{alice.user_id}/openid/request_token"
        token = (await alice.client.post(path, {})).body["access_token"]
        await server.accounts.deactivate(server.accounts.new_user_id("alice"))
        status, _ = await server.client.get(USERINFO, query={"access_token": token})
        self.assertEqual(status, 401)
