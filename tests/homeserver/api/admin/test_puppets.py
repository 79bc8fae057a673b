"""Administrators who use the accounts of others; replacing keys; features."""

from __future__ import annotations

from typing import Any

from homeserver.users.housekeeping import UserHousekeeping
from tests.homeserver.api.admin.case import V1, V2, AdminTestCase
from tests.support.keys import CrossSigner
from tests.support.room_case import q
from tests.support.server import User


class PuppetTest(AdminTestCase):
    async def log_in_as(self, **body: Any) -> User:
        path = f"{V1}/users/{q(self.bob.user_id)}/login"
        token = (await self.alice.ok("POST", path, body))["access_token"]
        return User(self.server, self.bob.user_id, token, "")

    async def assert_ended(self, puppet: User) -> None:
        answer = await puppet.call("GET", "/account/whoami")
        self.assert_error(answer, 401, "M_UNKNOWN_TOKEN")

    async def test_acting_as_somebody(self) -> None:
        """The owner is not told. Shows XC-4."""
        await self.prepare()
        puppet = await self.log_in_as()
        whoami = await puppet.ok("GET", "/account/whoami")
        self.assertEqual(whoami, {"user_id": self.bob.user_id, "is_guest": False})
        room_id = await puppet.create_room()
        self.assertEqual(await self.bob.ok("GET", "/joined_rooms"), {"joined_rooms": [room_id]})
        await puppet.send(room_id)
        await puppet.sync()
        devices = await self.bob.ok("GET", "/devices")
        self.assertEqual([each["device_id"] for each in devices["devices"]], [self.bob.device_id])
        answer = await puppet.call("POST", "/keys/upload", {})
        self.assertEqual(answer.status, 400)
        self.assert_error(await puppet.call("GET", f"{V2}/users"), 403, "M_FORBIDDEN")
        await puppet.ok("POST", "/logout", {})
        await self.assert_ended(puppet)
        await self.bob.ok("GET", "/account/whoami")

    async def test_when_it_ends(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        puppet = await self.log_in_as()
        await self.bob.ok("POST", "/logout/all", {})
        await puppet.ok("GET", "/account/whoami")
        path = f"{V1}/users/{q(self.alice.user_id)}/admin"
        carol = await self.server.register("carol")
        await self.alice.ok("PUT", f"{V1}/users/{q(carol.user_id)}/admin", {"admin": True})
        await carol.ok("PUT", path, {"admin": False})
        await self.assert_ended(puppet)
        await carol.ok("PUT", path, {"admin": True})
        await self.assert_ended(puppet)
        puppet = await self.log_in_as()
        account = f"{V2}/users/{q(self.alice.user_id)}"
        await carol.ok("PUT", account, {"locked": True})
        await self.assert_ended(puppet)
        await carol.ok("PUT", account, {"locked": False})
        puppet = await self.log_in_as()
        await self.alice.ok("POST", f"{V1}/deactivate/{q(self.bob.user_id)}", {})
        await self.assert_ended(puppet)
        body = {"deactivated": False, "password": "wonderland"}
        await self.alice.ok("PUT", f"{V2}/users/{q(self.bob.user_id)}", body)
        await self.assert_ended(puppet)
        puppet = await self.log_in_as()
        await self.alice.ok("POST", "/logout/all", {})
        await self.assert_ended(puppet)

    async def test_a_time_and_what_is_left_of_it(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        reactor = self.server.homeserver.reactor
        soon = int(reactor.seconds() * 1000) + 3_600_000
        puppet = await self.log_in_as(valid_until_ms=soon)
        await puppet.ok("GET", "/account/whoami")
        self.patch(reactor, "seconds", lambda: soon / 1000 + 1)
        await self.assert_ended(puppet)
        before = await self.count()
        await self.server.homeserver.services[UserHousekeeping].run()
        self.assertEqual(await self.count(), before - 1)

    async def count(self) -> int:
        db = self.server.homeserver.db
        return int(await db.read(lambda txn: txn.value("SELECT count(*) FROM access_tokens")))

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V1}/users/{q(self.bob.user_id)}/login"
        await self.refused("M_BAD_JSON", "POST", path, {"valid_until_ms": "x"})
        told = await self.refused("M_INVALID_PARAM", "POST", path, {"valid_until_ms": 1})
        self.assertIn("valid_until_ms", told)
        own = f"{V1}/users/{q(self.alice.user_id)}/login"
        await self.refused("M_INVALID_PARAM", "POST", own, {})
        await self.unknown("POST", f"{V1}/users/@nobody:hearth.test/login", {})
        await self.refused("M_INVALID_PARAM", "POST", f"{V1}/users/@x:elsewhere/login", {})
        await self.alice.ok("POST", f"{V1}/deactivate/{q(self.bob.user_id)}", {})
        await self.refused("M_USER_DEACTIVATED", "POST", path, {}, status=403)
        self.assertNotIn("log_in_as", [line["action"] for line in self.audit])


class KeysAndFeaturesTest(AdminTestCase):
    async def test_replacing_keys(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V1}/users/{q(self.bob.user_id)}/_allow_cross_signing_replacement_without_uia"
        await self.unknown("POST", path)
        upload = "/keys/device_signing/upload"
        await self.bob.ok("POST", upload, CrossSigner(self.bob).body())
        answer = await self.bob.call("POST", upload, CrossSigner(self.bob).body())
        self.assertEqual(answer.status, 401)
        now_ms = self.server.homeserver.reactor.seconds() * 1000
        until = (await self.alice.ok("POST", path))["updatable_without_uia_before_ms"]
        self.assertGreater(until, now_ms + 590_000)
        await self.bob.ok("POST", upload, CrossSigner(self.bob).body())
        reactor = self.server.homeserver.reactor
        self.patch(reactor, "seconds", lambda: until / 1000 + 1)
        answer = await self.bob.call("POST", upload, CrossSigner(self.bob).body())
        self.assertEqual(answer.status, 401)
        there = path.replace("bob", "nobody")
        await self.unknown("POST", there)

    async def test_features(self) -> None:
        """They are the same for everybody. Shows XC-4."""
        await self.prepare()
        path = f"{V1}/experimental_features/{q(self.bob.user_id)}"
        features = (await self.alice.ok("GET", path))["features"]
        self.assertEqual((features["msc3575"], features["msc4222"]), (True, True))
        self.assertEqual(await self.alice.ok("PUT", path, {"features": features}), {})
        told = await self.refused("M_INVALID_PARAM", "PUT", path, {"features": {"msc3575": False}})
        self.assertIn("msc3575", told)
        await self.refused("M_INVALID_PARAM", "PUT", path, {"features": {"other": True}})
        await self.refused("M_BAD_JSON", "PUT", path, {"features": {"msc3575": "x"}})
        for method, body in (("GET", None), ("PUT", {"features": {}})):
            there = f"{V1}/experimental_features/@nobody:hearth.test"
            await self.unknown(method, there, body)
