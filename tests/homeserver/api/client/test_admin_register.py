"""Registration with a shared secret."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from twisted.trial.unittest import TestCase

from config.model import RateLimits
from homeserver.users.registration import NONCE_LIFETIME_MS, RegistrationRules
from tests.support.users import UserServer, make_user_server

PATH = "/_synapse/admin/v1/register"
SECRET = "a shared secret"
RULES = RegistrationRules(shared_secret=SECRET)


def mac_of(*parts: str, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()


class SharedSecretTest(TestCase):
    server: UserServer

    async def prepare(self) -> None:
        self.server = await make_user_server(self, rules=RULES)

    async def nonce(self) -> str:
        status, answer = await self.server.client.get(PATH)
        self.assertEqual(status, 200)
        nonce: str = answer["nonce"]
        return nonce

    async def register(self, **changed: Any) -> tuple[int, Any]:
        nonce = await self.nonce()
        mac = mac_of(nonce, "alice", "wonderland", "notadmin")
        body = {"nonce": nonce, "username": "alice", "password": "wonderland", "mac": mac}
        return await self.server.client.post(PATH, {**body, **changed})

    async def test_user(self) -> None:
        await self.prepare()
        status, answer = await self.register()
        self.assertEqual(status, 200)
        self.assertEqual(answer["user_id"], "@alice:hearth.test")
        self.assertEqual(answer["home_server"], "hearth.test")
        client = self.server.client.with_token(answer["access_token"])
        _, known = await client.get("/_matrix/client/v3/account/whoami")
        self.assertEqual(known["device_id"], answer["device_id"])
        await self.server.log_in("alice", "wonderland")
        row = await self.server.accounts.get("@alice:hearth.test")
        assert row is not None
        self.assertFalse(row.is_admin)

    async def test_administrator_with_type_and_name(self) -> None:
        await self.prepare()
        nonce = await self.nonce()
        status, _ = await self.server.client.post(
            PATH,
            {
                "nonce": nonce,
                "username": "Root",
                "password": "wonderland",
                "admin": True,
                "user_type": "bot",
                "displayname": "The root",
                "mac": mac_of(nonce, "Root", "wonderland", "admin", "bot"),
            },
        )
        self.assertEqual(status, 200)
        row = await self.server.accounts.get("@root:hearth.test")
        assert row is not None
        self.assertTrue(row.is_admin)
        self.assertEqual(row.user_type, "bot")
        _, profile = await self.server.client.get("/_matrix/client/v3/profile/@root:hearth.test")
        self.assertEqual(profile, {"displayname": "The root"})

    async def test_wrong_mac(self) -> None:
        await self.prepare()
        for changed in (
            {"mac": "0" * 40},
            {"mac": ""},
            {"mac": "é"},
            {"admin": True},
            {"user_type": "bot"},
            {"username": "bob"},
            {"password": "other"},
        ):
            status, answer = await self.register(**changed)
            self.assertEqual((status, answer["errcode"]), (403, "M_UNKNOWN"), changed)
        self.assertIsNone(await self.server.accounts.get("@alice:hearth.test"))

    async def test_nonce_is_used_once(self) -> None:
        await self.prepare()
        nonce = await self.nonce()
        for username, expected in (("alice", 200), ("bob", 400)):
            mac = mac_of(nonce, username, "wonderland", "notadmin")
            status, _ = await self.server.client.post(
                PATH, {"nonce": nonce, "username": username, "password": "wonderland", "mac": mac}
            )
            self.assertEqual(status, expected)

    async def test_nonce_expires(self) -> None:
        await self.prepare()
        nonce = await self.nonce()
        self.server.clock.advance(NONCE_LIFETIME_MS / 1000)
        mac = mac_of(nonce, "alice", "wonderland", "notadmin")
        status, answer = await self.register(nonce=nonce, mac=mac)
        self.assertEqual((status, answer["errcode"]), (400, "M_UNKNOWN"))

    async def test_unusable_names_and_passwords(self) -> None:
        await self.prepare()
        await self.register()
        for username, password, errcode in (
            ("alice", "wonderland", "M_USER_IN_USE"),
            ("al ice", "wonderland", "M_INVALID_USERNAME"),
            ("bob", "", "M_WEAK_PASSWORD"),
        ):
            nonce = await self.nonce()
            mac = mac_of(nonce, username, password, "notadmin")
            status, answer = await self.register(
                nonce=nonce, username=username, password=password, mac=mac
            )
            self.assertEqual((status, answer["errcode"]), (400, errcode))

    async def test_malformed(self) -> None:
        await self.prepare()
        status, answer = await self.server.client.post(PATH, {})
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))
        bodies: list[dict[str, Any]] = [
            {"nonce": 1},
            {"username": 1},
            {"password": None},
            {"mac": []},
            {"admin": "yes"},
            {"user_type": 1},
        ]
        for changed in bodies:
            status, answer = await self.register(**changed)
            self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"), changed)

    async def test_many_at_once(self) -> None:
        """Scripts make accounts one after the other, and do not expect to be held up."""
        self.server = await make_user_server(self, rules=RULES, limits=RateLimits())
        for number in range(30):
            nonce = await self.nonce()
            mac = mac_of(nonce, f"user{number}", "wonderland", "notadmin")
            status, answer = await self.register(nonce=nonce, username=f"user{number}", mac=mac)
            self.assertEqual(status, 200, answer)

    async def test_without_secret(self) -> None:
        self.server = await make_user_server(self, rules=RegistrationRules(enabled=True))
        for answer in (
            await self.server.client.get(PATH),
            await self.server.client.post(
                PATH, {"nonce": "x", "username": "x", "password": "x", "mac": mac_of("x")}
            ),
        ):
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_UNKNOWN"))
