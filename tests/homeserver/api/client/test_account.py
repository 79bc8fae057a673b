"""whoami, changing the password, closing the account."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from storage import threepids
from tests.support.users import User, UserServer, make_user_server

V3 = "/_matrix/client/v3"
PASSWORD = f"{V3}/account/password"
DEACTIVATE = f"{V3}/account/deactivate"


class WhoamiTest(TestCase):
    async def test_whoami(self) -> None:
        """Shows ACC-11."""
        server = await make_user_server(self)
        alice = await server.add_user()
        _, answer = await alice.whoami()
        self.assertEqual(
            answer, {"user_id": alice.user_id, "device_id": alice.device_id, "is_guest": False}
        )

    async def test_tokens(self) -> None:
        """Shows HTTP-15."""
        server = await make_user_server(self)
        await server.add_user()
        for headers, errcode in (
            ({}, "M_MISSING_TOKEN"),
            ({"Authorization": "Bearer"}, "M_MISSING_TOKEN"),
            ({"Authorization": "Basic YWxpY2U6"}, "M_MISSING_TOKEN"),
            ({"Authorization": "Bearer nonsense"}, "M_UNKNOWN_TOKEN"),
            ({"Authorization": "Bearer é\u20ac"}, "M_UNKNOWN_TOKEN"),
            ({"Authorization": f"Bearer {'x' * 5000}"}, "M_UNKNOWN_TOKEN"),
        ):
            status, answer = await server.client.get(f"{V3}/account/whoami", headers=headers)
            self.assertEqual((status, answer["errcode"]), (401, errcode), headers)


class PasswordTest(TestCase):
    server: UserServer
    alice: User
    other: User

    async def prepare(self) -> None:
        self.server = await make_user_server(self)
        self.alice = await self.server.add_user()
        self.other = await self.server.log_in("alice", "wonderland")

    async def test_change(self) -> None:
        """Shows LOG-6."""
        await self.prepare()
        deleted: list[str] = []
        self.server.hooks.device_deleted.append(lambda txn, user, device: deleted.append(device))
        status, answer = await self.alice.confirmed(
            "POST", PASSWORD, {"new_password": "looking-glass"}
        )
        self.assertEqual((status, answer), (200, {}))
        self.assertEqual((await self.alice.whoami()).status, 200)
        self.assertEqual((await self.other.whoami()).status, 401)
        self.assertEqual(deleted, [self.other.device_id])
        await self.server.log_in("alice", "looking-glass")
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "wonderland",
        }
        self.assertEqual((await self.server.client.post(f"{V3}/login", body)).status, 403)

    async def test_keeping_other_sessions(self) -> None:
        """Shows LOG-6."""
        await self.prepare()
        body = {"new_password": "looking-glass", "logout_devices": False}
        status, _ = await self.alice.confirmed("POST", PASSWORD, body)
        self.assertEqual(status, 200)
        self.assertEqual((await self.alice.whoami()).status, 200)
        self.assertEqual((await self.other.whoami()).status, 200)

    async def test_weak(self) -> None:
        """Shows UIA-10."""
        await self.prepare()
        for password, errcode in (("", "M_WEAK_PASSWORD"), ("x" * 70_000, "M_INVALID_PARAM")):
            status, answer = await self.alice.client.post(PASSWORD, {"new_password": password})
            self.assertEqual((status, answer["errcode"]), (400, errcode))

    async def test_malformed(self) -> None:
        await self.prepare()
        for body, errcode in (
            ({}, "M_MISSING_PARAM"),
            ({"new_password": 1}, "M_BAD_JSON"),
            ({"new_password": "x", "logout_devices": "no"}, "M_BAD_JSON"),
            ({"new_password": "x", "auth": []}, "M_BAD_JSON"),
        ):
            status, answer = await self.alice.client.post(PASSWORD, body)
            self.assertEqual((status, answer["errcode"]), (400, errcode))

    async def test_switched_off(self) -> None:
        server = await make_user_server(self, passwords=False)
        user_id = server.accounts.new_user_id("alice")
        await server.accounts.create(user_id, None)
        from homeserver.users.sessions import NewSession

        grant = await server.sessions.begin(user_id, NewSession())
        client = server.client.with_token(grant.access_token)
        for path, body in (
            (PASSWORD, {"new_password": "x"}),
            ("/_matrix/client/v1/login/get_token", {}),
        ):
            status, answer = await client.post(path, body)
            self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        _, answer = await client.get(f"{V3}/capabilities")
        for name in ("m.change_password", "m.get_login_token"):
            self.assertEqual(answer["capabilities"][name], {"enabled": False})


class DeactivateTest(TestCase):
    async def test_everything_ends(self) -> None:
        """Shows ACC-1, ACC-2."""
        server = await make_user_server(self)
        alice = await server.add_user()
        other = await server.log_in("alice", "wonderland", refresh_token=True)
        await alice.client.put(
            f"{V3}/profile/{alice.user_id}/displayname", {"displayname": "Alice"}
        )
        await server.db.write(threepids.add, "email", "alice@example.org", alice.user_id, 1)
        deleted: list[str] = []
        left: list[str] = []

        server.hooks.device_deleted.append(lambda txn, user, device: deleted.append(device))
        server.hooks.deactivated.append(lambda txn, user_id: left.append(user_id))
        status, answer = await alice.confirmed("POST", DEACTIVATE, {})
        self.assertEqual((status, answer), (200, {"id_server_unbind_result": "success"}))
        self.assertEqual((await alice.whoami()).status, 401)
        self.assertEqual((await other.whoami()).status, 401)
        self.assertEqual(sorted(deleted), sorted([alice.device_id, other.device_id]))
        self.assertEqual(left, [alice.user_id])
        refresh = {"refresh_token": other.answer["refresh_token"]}
        self.assertEqual((await server.client.post(f"{V3}/refresh", refresh)).status, 401)
        self.assertIsNone(await server.db.read(threepids.get_user, "email", "alice@example.org"))
        self.assertEqual((await server.client.get(f"{V3}/profile/{alice.user_id}")).status, 404)
        row = await server.accounts.get(alice.user_id)
        assert row is not None
        self.assertTrue(row.deactivated)
        self.assertFalse(row.erased)
        self.assertIsNone(row.password_hash)
        status, answer = await server.client.post(
            f"{V3}/register",
            {"username": "alice", "password": "x", "auth": {"type": "m.login.dummy"}},
        )
        self.assertEqual((status, answer["errcode"]), (400, "M_USER_IN_USE"))

    async def test_erase(self) -> None:
        """Shows ACC-1."""
        server = await make_user_server(self)
        alice = await server.add_user()
        erased: list[str] = []
        server.hooks.erase.append(lambda txn, user_id: erased.append(user_id))
        status, _ = await alice.confirmed("POST", DEACTIVATE, {"erase": True})
        self.assertEqual(status, 200)
        row = await server.accounts.get(alice.user_id)
        assert row is not None
        self.assertTrue(row.erased)
        self.assertEqual(erased, [alice.user_id])

    async def test_asks_without_body(self) -> None:
        """Shows UIA-1."""
        server = await make_user_server(self)
        alice = await server.add_user()
        empty: dict[str, Any] = {}
        for body in (None, empty):
            status, answer = await alice.client.post(DEACTIVATE, body)
            self.assertEqual(status, 401)
            self.assertIn("flows", answer)
        self.assertEqual((await server.client.post(DEACTIVATE, {})).status, 401)
        self.assertEqual((await alice.whoami()).status, 200)

    async def test_malformed(self) -> None:
        server = await make_user_server(self)
        alice = await server.add_user()
        bodies: list[dict[str, Any]] = [{"erase": "yes"}, {"id_server": 1}, {"auth": 1}]
        for body in bodies:
            status, answer = await alice.client.post(DEACTIVATE, body)
            self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"))
