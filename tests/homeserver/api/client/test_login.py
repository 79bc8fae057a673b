"""Logging in and out, login tokens and refreshing."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.api.client.well_known import WellKnown
from homeserver.users.login import LOGIN_TOKEN_LIFETIME_MS
from storage import threepids, users
from tests.support.users import LIMITED, User, UserServer, make_user_server

V3 = "/_matrix/client/v3"
LOGIN = f"{V3}/login"
GET_TOKEN = "/_matrix/client/v1/login/get_token"
PASSWORD: dict[str, Any] = {"type": "m.login.password", "password": "wonderland"}


def by_name(user: Any) -> dict[str, Any]:
    return {"identifier": {"type": "m.id.user", "user": user}}


class LoginTest(TestCase):
    async def server(self, **options: Any) -> UserServer:
        server = await make_user_server(self, **options)
        await server.accounts.create(server.accounts.new_user_id("alice"), "wonderland")
        return server

    async def test_flows(self) -> None:
        """Shows LOG-1."""
        server = await self.server()
        _, answer = await server.client.get(LOGIN)
        self.assertEqual(
            answer,
            {
                "flows": [
                    {"type": "m.login.password"},
                    {"type": "m.login.token", "get_login_token": True},
                ]
            },
        )

    async def test_without_passwords(self) -> None:
        """Shows LOG-1."""
        server = await self.server(passwords=False)
        _, answer = await server.client.get(LOGIN)
        self.assertEqual(answer, {"flows": [{"type": "m.login.token"}]})
        status, answer = await server.client.post(LOGIN, {**PASSWORD, **by_name("alice")})
        self.assertEqual((status, answer["errcode"]), (400, "M_UNKNOWN"))

    async def test_forms_of_the_name(self) -> None:
        """Shows LOG-2."""
        server = await self.server()
        for name in (
            by_name("alice"),
            by_name("ALICE"),
            by_name("@alice:hearth.test"),
            by_name("@Alice:hearth.test"),
            {"user": "alice"},
            {"user": "@alice:hearth.test"},
        ):
            status, answer = await server.client.post(LOGIN, {**PASSWORD, **name})
            self.assertEqual(status, 200, name)
            self.assertEqual(answer["user_id"], "@alice:hearth.test")
            self.assertEqual(answer["home_server"], "hearth.test")
            _, known = await server.client.with_token(answer["access_token"]).get(
                f"{V3}/account/whoami"
            )
            self.assertEqual(known["device_id"], answer["device_id"])

    async def test_historical_name_in_upper_case(self) -> None:
        """Shows LOG-2."""
        server = await self.server()
        row = await server.accounts.get("@alice:hearth.test")
        assert row is not None
        old = row._replace(user_id="@Alice:hearth.test", is_admin=True)
        await server.db.write(users.insert_user, old)
        for name, expected in (("Alice", "@Alice:hearth.test"), ("alice", "@alice:hearth.test")):
            user = await server.log_in(name, "wonderland")
            self.assertEqual(user.user_id, expected)

    async def test_contacts(self) -> None:
        """Shows LOG-2."""
        server = await self.server()
        for medium, address in (("email", "alice@example.org"), ("msisdn", "447700900123")):
            await server.db.write(threepids.add, medium, address, "@alice:hearth.test", 1)
        phone = {"type": "m.id.phone", "country": "GB"}
        third = {"type": "m.id.thirdparty"}
        for identifier, expected in (
            ({**third, "medium": "email", "address": "Alice@example.org"}, 200),
            ({**third, "medium": "msisdn", "address": "447700900123"}, 200),
            ({**phone, "phone": "+44 7700 900-123"}, 200),
            ({**phone, "phone": "0044 (7700) 900123"}, 200),
            ({**third, "medium": "email", "address": "bob@example.org"}, 403),
            ({**third, "medium": "fax", "address": "447700900123"}, 403),
            ({**phone, "phone": "+44 7700 900124"}, 403),
            ({**phone, "phone": "call me"}, 403),
        ):
            status, _ = await server.client.post(LOGIN, {**PASSWORD, "identifier": identifier})
            self.assertEqual(status, expected, identifier)
        old = {"medium": "email", "address": "alice@example.org"}
        self.assertEqual((await server.client.post(LOGIN, {**PASSWORD, **old})).status, 200)

    async def test_wrong_and_unknown_are_alike(self) -> None:
        """Shows LOG-3."""
        server = await self.server()
        nobody = server.accounts.new_user_id("nobody")
        await server.accounts.create(nobody, None)
        answers = []
        for name, password in (
            ("alice", "looking-glass"),
            ("alice", ""),
            ("bob", "wonderland"),
            ("nobody", "wonderland"),
            ("@alice:elsewhere.test", "wonderland"),
            ("@alice", "wonderland"),
            ("@:hearth.test", "wonderland"),
            ("", "wonderland"),
            ("é" * 1000, "wonderland"),
            ("alice", "x" * 100_000),
        ):
            body = {**PASSWORD, **by_name(name), "password": password}
            status, answer = await server.client.post(LOGIN, body)
            answers.append((status, answer["errcode"], answer["error"]))
        self.assertEqual(set(answers), {(403, "M_FORBIDDEN", answers[0][2])})

    async def test_device(self) -> None:
        """Shows LOG-4."""
        server = await self.server()
        first = await server.log_in(
            "alice", "wonderland", device_id="PHONE", initial_device_display_name="Phone"
        )
        self.assertEqual(first.device_id, "PHONE")
        second = await server.log_in("alice", "wonderland", device_id="PHONE")
        self.assertEqual((await first.whoami()).status, 401)
        self.assertEqual((await second.whoami()).status, 200)
        _, device = await second.client.get(f"{V3}/devices/PHONE")
        self.assertEqual(device["display_name"], "Phone")
        third = await server.log_in("alice", "wonderland")
        self.assertRegex(third.device_id, r"^[A-Z]{10}$")

    async def test_device_id_too_long(self) -> None:
        server = await self.server()
        body = {**PASSWORD, **by_name("alice"), "device_id": "é" * 128}
        status, answer = await server.client.post(LOGIN, body)
        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_well_known(self) -> None:
        url = "https://matrix.hearth.test/"
        server = await self.server(discovery=WellKnown(url))
        user = await server.log_in("alice", "wonderland")
        self.assertEqual(user.answer["well_known"], {"m.homeserver": {"base_url": url}})

    async def test_malformed(self) -> None:
        server = await self.server()
        name = by_name("alice")
        for body, expected in (
            ({}, (400, "M_MISSING_PARAM")),
            ([], (400, "M_BAD_JSON")),
            ({"type": 1}, (400, "M_BAD_JSON")),
            ({"type": "m.login.unknown"}, (400, "M_UNKNOWN")),
            ({"type": "m.login.token"}, (400, "M_MISSING_PARAM")),
            ({"type": "m.login.token", "token": 1}, (400, "M_BAD_JSON")),
            ({"type": "m.login.password"}, (400, "M_MISSING_PARAM")),
            (PASSWORD, (400, "M_MISSING_PARAM")),
            ({**name, "type": "m.login.password"}, (400, "M_MISSING_PARAM")),
            ({**PASSWORD, **name, "password": 1}, (400, "M_BAD_JSON")),
            ({**PASSWORD, **name, "device_id": 1}, (400, "M_BAD_JSON")),
            ({**PASSWORD, **name, "refresh_token": "yes"}, (400, "M_BAD_JSON")),
            ({**PASSWORD, "identifier": "alice"}, (400, "M_BAD_JSON")),
            ({**PASSWORD, "identifier": {}}, (400, "M_MISSING_PARAM")),
            ({**PASSWORD, "identifier": {"type": "m.id.user"}}, (400, "M_MISSING_PARAM")),
            ({**PASSWORD, "identifier": {"type": 1}}, (400, "M_BAD_JSON")),
            ({**PASSWORD, "identifier": {"type": "m.id.unknown"}}, (400, "M_UNKNOWN")),
            ({**PASSWORD, "identifier": {"type": "m.id.phone"}}, (400, "M_MISSING_PARAM")),
            ({**PASSWORD, **by_name(1)}, (400, "M_BAD_JSON")),
            ({**PASSWORD, **by_name("al\0ice")}, (400, "M_INVALID_PARAM")),
        ):
            status, answer = await server.client.post(LOGIN, body)
            self.assertEqual((status, answer["errcode"]), expected, body)
        for raw in (b"", b"{", b'{"type": "\xff"}', b'{"type": "\\ud800"}', b'{"a": NaN}'):
            status, answer = await server.client.post(LOGIN, body=raw)
            self.assertEqual((status, answer["errcode"]), (400, "M_NOT_JSON"), raw)

    async def test_closed_and_locked_accounts(self) -> None:
        """Shows LOG-12."""
        server = await self.server()
        body = {**PASSWORD, **by_name("alice")}
        user_id = server.accounts.new_user_id("alice")
        await server.accounts.set_locked(user_id, True)
        status, answer = await server.client.post(LOGIN, body)
        self.assertEqual((status, answer["errcode"]), (401, "M_USER_LOCKED"))
        wrong = {**body, "password": "looking-glass"}
        self.assertEqual((await server.client.post(LOGIN, wrong)).status, 403)
        await server.accounts.set_locked(user_id, False)
        await server.accounts.deactivate(user_id)
        status, answer = await server.client.post(LOGIN, body)
        self.assertEqual((status, answer["errcode"]), (403, "M_USER_DEACTIVATED"))

    async def test_attempts_on_one_account_are_limited(self) -> None:
        server = await self.server(limits=LIMITED)
        statuses = []
        for host in range(5):
            body = {**PASSWORD, **by_name("alice"), "password": "guess"}
            address = f"192.0.2.{host}"
            statuses.append((await server.client.post(LOGIN, body, address=address)).status)
        self.assertEqual(statuses, [403, 403, 403, 429, 429])
        server.clock.advance(10)
        await server.log_in("alice", "wonderland")

    async def test_imported_password_hash_is_renewed(self) -> None:
        import bcrypt

        server = await self.server()
        stored = bcrypt.hashpw(b"from elsewhere", bcrypt.gensalt(4)).decode()
        await server.db.write(users.set_password_hash, "@alice:hearth.test", stored)
        await server.log_in("alice", "from elsewhere")
        row = await server.accounts.get("@alice:hearth.test")
        assert row is not None and row.password_hash is not None
        self.assertTrue(row.password_hash.startswith("$argon2id$"))
        await server.log_in("alice", "from elsewhere")


class LoginTokenTest(TestCase):
    server: UserServer
    alice: User

    async def prepare(self, **options: Any) -> None:
        self.server = await make_user_server(self, **options)
        self.alice = await self.server.add_user()

    async def token(self) -> Any:
        status, answer = await self.alice.confirmed("POST", GET_TOKEN, {})
        self.assertEqual(status, 200)
        return answer["login_token"]

    async def redeem(self, token: str) -> tuple[int, Any]:
        return await self.server.client.post(LOGIN, {"type": "m.login.token", "token": token})

    async def test_single_use(self) -> None:
        """Shows LOG-7."""
        await self.prepare()
        token = await self.token()
        status, answer = await self.redeem(token)
        self.assertEqual((status, answer["user_id"]), (200, self.alice.user_id))
        self.assertNotEqual(answer["device_id"], self.alice.device_id)
        status, answer = await self.redeem(token)
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_wrong_and_expired(self) -> None:
        """Shows LOG-7."""
        await self.prepare()
        token = await self.token()
        for wrong in ("", "nonsense", "é", self.alice.token):
            status, answer = await self.redeem(wrong)
            self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"), wrong)
        self.server.clock.advance(LOGIN_TOKEN_LIFETIME_MS / 1000)
        self.assertEqual((await self.redeem(token))[0], 403)

    async def test_always_asks(self) -> None:
        """Shows LOG-8: a finished authentication gives one token, not two."""
        await self.prepare()
        status, asked = await self.alice.client.post(GET_TOKEN, {})
        self.assertEqual(status, 401)
        body = {"auth": self.alice.proof(asked["session"])}
        status, answer = await self.alice.client.post(GET_TOKEN, body)
        self.assertEqual(status, 200)
        self.assertEqual(answer["expires_in_ms"], 120_000)
        body = {"auth": {"session": asked["session"]}}
        status, answer = await self.alice.client.post(GET_TOKEN, body)
        self.assertEqual(status, 401)
        self.assertNotEqual(answer["session"], asked["session"])

    async def test_rate_limit(self) -> None:
        """Shows LOG-8."""
        await self.prepare()
        limited = await make_user_server(self, limits=LIMITED)
        user = await limited.add_user()
        statuses = [(await user.client.post(GET_TOKEN, {})).status for _ in range(4)]
        self.assertEqual(statuses, [401, 401, 401, 429])

    async def test_ends_with_the_account(self) -> None:
        await self.prepare()
        token = await self.token()
        await self.alice.confirmed(
            "POST", f"{V3}/account/password", {"new_password": "looking-glass"}
        )
        self.assertEqual((await self.redeem(token))[0], 403)


class LogoutTest(TestCase):
    async def test_logout(self) -> None:
        """Shows LOG-5, HTTP-6."""
        server = await make_user_server(self)
        alice = await server.add_user()
        other = await server.log_in("alice", "wonderland")
        status, answer = await alice.client.post(f"{V3}/logout")
        self.assertEqual((status, answer), (200, {}))
        status, answer = await alice.whoami()
        self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))
        self.assertNotIn("soft_logout", answer)
        _, listed = await other.client.get(f"{V3}/devices")
        self.assertEqual([each["device_id"] for each in listed["devices"]], [other.device_id])

    async def test_logout_all(self) -> None:
        """Shows LOG-5, HTTP-6."""
        server = await make_user_server(self)
        alice = await server.add_user()
        other = await server.log_in("alice", "wonderland")
        bob = await server.add_user("bob", "builder")
        self.assertEqual((await alice.client.post(f"{V3}/logout/all")).status, 200)
        self.assertEqual((await alice.whoami()).status, 401)
        self.assertEqual((await other.whoami()).status, 401)
        self.assertEqual((await bob.whoami()).status, 200)

    async def test_locked_account(self) -> None:
        """Shows ACC-7."""
        server = await make_user_server(self)
        alice = await server.add_user()
        other = await server.log_in("alice", "wonderland")
        await server.accounts.set_locked(alice.user_id, True)
        status, answer = await alice.whoami()
        self.assertEqual((status, answer["errcode"]), (401, "M_USER_LOCKED"))
        self.assertIs(answer["soft_logout"], True)
        self.assertEqual((await alice.client.post(f"{V3}/logout")).status, 200)
        await server.accounts.set_locked(alice.user_id, False)
        self.assertEqual((await alice.whoami()).status, 401)
        self.assertEqual((await other.whoami()).status, 200)

    async def test_needs_a_token(self) -> None:
        """Shows HTTP-15."""
        server = await make_user_server(self)
        for path in ("/logout", "/logout/all"):
            status, answer = await server.client.post(V3 + path)
            self.assertEqual((status, answer["errcode"]), (401, "M_MISSING_TOKEN"))
            status, answer = await server.client.with_token("nonsense").post(V3 + path)
            self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))

    async def test_token_in_the_query(self) -> None:
        """Shows HTTP-16."""
        server = await make_user_server(self)
        alice = await server.add_user()
        status, answer = await server.client.get(
            f"{V3}/account/whoami", query={"access_token": alice.token}
        )
        self.assertEqual((status, answer["errcode"]), (401, "M_MISSING_TOKEN"))


class RefreshTest(TestCase):
    async def test_refresh(self) -> None:
        """Shows LOG-9, LOG-10."""
        server = await make_user_server(self)
        await server.add_user()
        user = await server.log_in("alice", "wonderland", refresh_token=True)
        self.assertEqual(user.answer["expires_in_ms"], 300_000)
        server.clock.advance(300)
        status, answer = await user.whoami()
        self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))
        self.assertIs(answer["soft_logout"], True)
        old = {"refresh_token": user.answer["refresh_token"]}
        status, answer = await server.client.post(f"{V3}/refresh", old)
        self.assertEqual(status, 200)
        self.assertEqual(answer["expires_in_ms"], 300_000)
        client = server.client.with_token(answer["access_token"])
        _, known = await client.get(f"{V3}/account/whoami")
        self.assertEqual(known["device_id"], user.device_id)
        status, answer = await server.client.post(f"{V3}/refresh", old)
        self.assertEqual((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))

    async def test_not_asked_for(self) -> None:
        """Shows LOG-9."""
        server = await make_user_server(self)
        user = await server.add_user()
        self.assertNotIn("refresh_token", user.answer)
        self.assertNotIn("expires_in_ms", user.answer)

    async def test_malformed(self) -> None:
        server = await make_user_server(self)
        for body, expected in (
            ({}, (400, "M_MISSING_PARAM")),
            ({"refresh_token": 1}, (400, "M_BAD_JSON")),
            ({"refresh_token": "nonsense"}, (401, "M_UNKNOWN_TOKEN")),
            ({"refresh_token": "é" * 5000}, (401, "M_UNKNOWN_TOKEN")),
        ):
            status, answer = await server.client.post(f"{V3}/refresh", body)
            self.assertEqual((status, answer["errcode"]), expected)

    async def test_locked(self) -> None:
        server = await make_user_server(self)
        await server.add_user()
        user = await server.log_in("alice", "wonderland", refresh_token=True)
        await server.accounts.set_locked(user.user_id, True)
        body = {"refresh_token": user.answer["refresh_token"]}
        status, answer = await server.client.post(f"{V3}/refresh", body)
        self.assertEqual((status, answer["errcode"]), (401, "M_USER_LOCKED"))
