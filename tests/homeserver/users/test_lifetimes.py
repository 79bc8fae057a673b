"""How long sessions and login tokens last, as configured."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from storage.database import sleep
from tests.support.databases import reactor
from tests.support.server import make_server
from tests.support.users import make_user_server

V3 = "/_matrix/client/v3"


class LifetimeTest(TestCase):
    timeout = 30

    async def test_sessions_without_refreshing(self) -> None:
        """Shows LOG-10: the device stays, and its owner comes back to it."""
        server = await make_user_server(self, sessions={"unrefreshed_lifetime_ms": 60_000})
        alice = await server.add_user()
        self.assertEqual(alice.answer["expires_in_ms"], 60_000)
        self.assertNotIn("refresh_token", alice.answer)
        self.assertEqual((await alice.whoami()).status, 200)
        server.clock.advance(60)
        status, answer = await alice.whoami()
        self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))
        self.assertIs(answer["soft_logout"], True)
        again = await server.log_in("alice", "wonderland", device_id=alice.device_id)
        _, listed = await again.client.get(f"{V3}/devices")
        self.assertEqual([each["device_id"] for each in listed["devices"]], [alice.device_id])
        self.assertNotIn("soft_logout", (await alice.whoami()).body)

    async def test_configured(self) -> None:
        """Shows LOG-7, LOG-10."""
        sessions = {"unrefreshed_token_lifetime": "90d", "login_token_lifetime": "200ms"}
        server = await make_server(self, sessions=sessions)
        alice = await server.register("alice")
        auth: Any = {"type": "m.login.password", "password": "wonderland"}
        path = "/_matrix/client/v1/login/get_token"
        answer = await alice.ok("POST", path, {"auth": auth})
        self.assertEqual(answer["expires_in_ms"], 200)
        await sleep(reactor, 0.25)
        body = {"type": "m.login.token", "token": answer["login_token"]}
        status, refused = await server.client.post(f"{V3}/login", body)
        self.assertEqual((status, refused["errcode"]), (403, "M_FORBIDDEN"))
        login = {**auth, "identifier": {"type": "m.id.user", "user": "alice"}}
        _, logged_in = await server.client.post(f"{V3}/login", login)
        self.assertEqual(logged_in["expires_in_ms"], 90 * 86_400_000)

    async def test_login_tokens_of_other_users(self) -> None:
        """Shows LOG-8, UIA-3: Bob's proof makes no token for Alice, nor Alice's session for Bob."""
        server = await make_server(self)
        alice, bob = await server.register("alice"), await server.register("bob", "builder")
        path = "/_matrix/client/v1/login/get_token"
        _, asked = await alice.call("POST", path, {})
        proof = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "builder",
            "session": asked["session"],
        }
        for user in (alice, bob):
            status, answer = await user.call("POST", path, {"auth": proof})
            self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_get_token_is_limited_more_than_logging_in(self) -> None:
        """Shows LOG-8."""
        server = await make_server(self, rate_limits={"enabled": True})
        alice = await server.register("alice")
        path = "/_matrix/client/v1/login/get_token"
        answers = [await alice.client.full("POST", path, {}, address="192.0.2.1") for _ in range(4)]
        self.assertEqual([each.status for each in answers], [401, 401, 401, 429])
        self.assertGreater(int(answers[-1].headers["retry-after"]), 30)
