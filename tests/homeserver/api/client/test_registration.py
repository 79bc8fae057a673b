"""Registering users and guests."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from homeserver.core.ids import valid_new_localpart
from homeserver.users.registration import RegistrationRules
from tests.support.users import LIMITED, OPEN, UserServer, make_user_server

V3 = "/_matrix/client/v3"
REGISTER = f"{V3}/register"
VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity"
DUMMY = {"type": "m.login.dummy"}
WITH_TOKEN = RegistrationRules(enabled=True, require_token=True)


async def register(server: UserServer, **body: Any) -> tuple[int, Any]:
    return await server.client.post(REGISTER, {"password": "wonderland", "auth": DUMMY, **body})


class RegistrationTest(TestCase):
    async def test_register_and_use(self) -> None:
        server = await make_user_server(self)
        status, answer = await register(
            server,
            username="alice",
            device_id="PHONE",
            initial_device_display_name="Phone",
            refresh_token=True,
        )
        self.assertEqual(status, 200)
        self.assertEqual(answer["user_id"], "@alice:hearth.test")
        self.assertEqual(answer["device_id"], "PHONE")
        self.assertEqual(answer["expires_in_ms"], 300_000)
        self.assertIn("refresh_token", answer)
        client = server.client.with_token(answer["access_token"])
        _, device = await client.get(f"{V3}/devices/PHONE")
        self.assertEqual(device["display_name"], "Phone")
        await server.log_in("alice", "wonderland")

    async def test_upper_case_is_lowered(self) -> None:
        """Shows UIA-7, ID-4."""
        server = await make_user_server(self)
        _, answer = await register(server, username="Alice")
        self.assertEqual(answer["user_id"], "@alice:hearth.test")

    async def test_name_is_checked_before_authentication(self) -> None:
        """Shows UIA-7, ID-4."""
        server = await make_user_server(self)
        await register(server, username="alice")
        for username, errcode in (
            ("alice", "M_USER_IN_USE"),
            ("ALICE", "M_USER_IN_USE"),
            ("al ice", "M_INVALID_USERNAME"),
            ("", "M_INVALID_USERNAME"),
            ("álice", "M_INVALID_USERNAME"),
            ("\u212aelvin", "M_INVALID_USERNAME"),
            ("al\0ice", "M_INVALID_USERNAME"),
            ("@alice:hearth.test", "M_INVALID_USERNAME"),
            ("a" * 250, "M_INVALID_USERNAME"),
        ):
            body = {"username": username, "password": "wonderland"}
            for auth in ({}, {"auth": DUMMY}):
                status, answer = await server.client.post(REGISTER, {**body, **auth})
                self.assertEqual((status, answer["errcode"]), (400, errcode), username)
            status, answer = await server.client.get(
                f"{REGISTER}/available", query={"username": username}
            )
            expected = "M_INVALID_PARAM" if "\0" in username else errcode
            self.assertEqual((status, answer["errcode"]), (400, expected), username)

    async def test_all_permitted_characters(self) -> None:
        """Shows ID-4."""
        server = await make_user_server(self)
        _, answer = await register(server, username="az09._=-/+")
        self.assertEqual(answer["user_id"], "@az09._=-/+:hearth.test")

    async def test_available(self) -> None:
        server = await make_user_server(self)
        path = f"{REGISTER}/available"
        _, answer = await server.client.get(path, query={"username": "alice"})
        self.assertEqual(answer, {"available": True})
        status, answer = await server.client.get(path)
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))

    async def test_name_taken_meanwhile(self) -> None:
        """Shows UIA-7: two registrations at once make one account."""
        server = await make_user_server(self)
        both = [Deferred.fromCoroutine(register(server, username="alice")) for _ in range(2)]
        answers = await gatherResults(both)
        self.assertEqual(sorted(status for status, _ in answers), [200, 400])
        refused = next(answer for status, answer in answers if status == 400)
        self.assertEqual(refused["errcode"], "M_USER_IN_USE")

    async def test_without_a_name(self) -> None:
        """Shows UIA-8."""
        server = await make_user_server(self)
        names = set()
        for _ in range(5):
            status, answer = await register(server)
            self.assertEqual(status, 200)
            localpart = answer["user_id"][1:].partition(":")[0]
            self.assertTrue(valid_new_localpart(localpart))
            names.add(localpart)
        self.assertEqual(len(names), 5)

    async def test_random_name_that_is_taken(self) -> None:
        """Shows UIA-8."""
        server = await make_user_server(self)
        names = iter(["first", "first", "second"])
        self.patch(
            __import__("homeserver.users.accounts", fromlist=["x"]),
            "new_localpart",
            lambda: next(names),
        )
        _, one = await register(server)
        _, two = await register(server)
        self.assertEqual(one["user_id"], "@first:hearth.test")
        self.assertEqual(two["user_id"], "@second:hearth.test")

    async def test_inhibit_login(self) -> None:
        """Shows UIA-9."""
        server = await make_user_server(self)
        status, answer = await register(server, username="alice", inhibit_login=True)
        self.assertEqual(status, 200)
        self.assertEqual(set(answer), {"user_id", "home_server"})
        user = await server.log_in("alice", "wonderland")
        _, listed = await user.client.get(f"{V3}/devices")
        self.assertEqual(len(listed["devices"]), 1)

    async def test_repeated_after_a_lost_answer(self) -> None:
        """Shows UIA-4."""
        server = await make_user_server(self)
        body: dict[str, Any] = {"username": "alice", "password": "wonderland"}
        _, asked = await server.client.post(REGISTER, body)
        body["auth"] = {"type": "m.login.dummy", "session": asked["session"]}
        _, first = await server.client.post(REGISTER, body)
        status, second = await server.client.post(REGISTER, body)
        self.assertEqual(status, 200)
        self.assertEqual(second["user_id"], first["user_id"])
        self.assertEqual(second["device_id"], first["device_id"])
        whoami = f"{V3}/account/whoami"
        self.assertEqual(
            (await server.client.with_token(second["access_token"]).get(whoami)).status, 200
        )
        for changed in ({"username": "bob"}, {"password": "looking-glass"}, {"password": None}):
            status, answer = await server.client.post(REGISTER, {**body, **changed})
            self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"), changed)

    async def test_passwords(self) -> None:
        """Shows UIA-10."""
        server = await make_user_server(self)
        for number, password in enumerate(("пароль", "🔑" * 2000, "x" * 60_000, " ")):
            name = f"user{number}"
            status, _ = await register(server, username=name, password=password)
            self.assertEqual(status, 200)
            await server.log_in(name, password)
        for password, errcode in (("", "M_WEAK_PASSWORD"), ("x" * 70_000, "M_INVALID_PARAM")):
            status, answer = await register(server, username="weak", password=password)
            self.assertEqual((status, answer["errcode"]), (400, errcode))
        status, answer = await server.client.post(REGISTER, {"username": "weak", "auth": DUMMY})
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))
        self.assertIsNone(await server.accounts.get("@weak:hearth.test"))

    async def test_malformed(self) -> None:
        server = await make_user_server(self)
        bodies: list[Any] = [
            [],
            {"username": 1},
            {"username": "alice", "password": 1},
            {"auth": "dummy"},
            {"inhibit_login": "yes"},
            {"refresh_token": 1},
            {"device_id": {}},
            {"username": 1.5},
        ]
        for body in bodies:
            status, answer = await server.client.post(REGISTER, body)
            self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"), body)
        for raw in (b"", b"{", b"\xff", b'{"username": "\\ud800"}'):
            status, answer = await server.client.post(REGISTER, body=raw)
            self.assertEqual((status, answer["errcode"]), (400, "M_NOT_JSON"), raw)
        status, answer = await server.client.post(REGISTER, {}, query={"kind": "robot"})
        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_closed(self) -> None:
        for rules in (
            RegistrationRules(),
            RegistrationRules(without_verification=True),
            RegistrationRules(enabled=True),
            RegistrationRules(enabled=True, terms=True),
        ):
            server = await make_user_server(self, rules=rules)
            for body in ({}, {"username": "alice", "password": "x", "auth": DUMMY}):
                status, answer = await server.client.post(REGISTER, body)
                self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
            for path, query in (
                (f"{REGISTER}/available", {"username": "alice"}),
                (VALIDITY, {"token": "welcome"}),
            ):
                status, answer = await server.client.get(path, query=query)
                self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_rate_limit(self) -> None:
        server = await make_user_server(self, limits=LIMITED)
        statuses = [(await register(server))[0] for _ in range(5)]
        self.assertEqual(statuses, [200, 200, 200, 429, 429])


class TokenValidityTest(TestCase):
    async def test_validity(self) -> None:
        """Shows UIA-11."""
        server = await make_user_server(self, rules=WITH_TOKEN)
        await server.registration_tokens.create("welcome", uses_allowed=1)
        for token, valid in (
            ("welcome", True),
            ("other", False),
            ("", False),
            ("x" * 65, False),
            ("é", False),
        ):
            status, answer = await server.client.get(VALIDITY, query={"token": token})
            self.assertEqual((status, answer), (200, {"valid": valid}), token)
        auth = {"type": "m.login.registration_token", "token": "welcome"}
        self.assertEqual((await register(server, username="alice", auth=auth))[0], 200)
        _, answer = await server.client.get(VALIDITY, query={"token": "welcome"})
        self.assertEqual(answer, {"valid": False})
        self.assertEqual((await server.client.get(VALIDITY)).status, 400)

    async def test_rate_limit(self) -> None:
        """Shows UIA-11."""
        server = await make_user_server(self, rules=WITH_TOKEN, limits=LIMITED)
        query = {"token": "guess"}
        statuses = [(await server.client.get(VALIDITY, query=query)).status for _ in range(4)]
        self.assertEqual(statuses, [200, 200, 200, 429])

    async def test_making_tokens(self) -> None:
        server = await make_user_server(self)
        token = await server.registration_tokens.create()
        self.assertTrue(await server.registration_tokens.is_valid(token))
        for bad in (token, "", "a b", "x" * 65):
            with self.assertRaises(Exception) as caught:
                await server.registration_tokens.create(bad)
            self.assertEqual(caught.exception.errcode, "M_INVALID_PARAM")


class GuestTest(TestCase):
    async def guest(self, server: UserServer, **body: Any) -> Any:
        status, answer = await server.client.post(REGISTER, body, query={"kind": "guest"})
        self.assertEqual(status, 200)
        return answer

    async def test_only_the_device_name_is_read(self) -> None:
        """Shows UIA-14."""
        server = await make_user_server(self)
        answer = await self.guest(
            server,
            username=["anything"],
            password=7,
            device_id="PHONE",
            inhibit_login=True,
            auth="none",
            initial_device_display_name="Kiosk",
        )
        self.assertNotEqual(answer["device_id"], "PHONE")
        client = server.client.with_token(answer["access_token"])
        _, known = await client.get(f"{V3}/account/whoami")
        self.assertEqual(known["user_id"], answer["user_id"])
        self.assertIs(known["is_guest"], True)
        _, device = await client.get(f"{V3}/devices/{answer['device_id']}")
        self.assertEqual(device["display_name"], "Kiosk")

    async def test_what_guests_reach(self) -> None:
        """Shows LOG-11."""
        server = await make_user_server(self)
        answer = await self.guest(server)
        client = server.client.with_token(answer["access_token"])
        user_id, device = answer["user_id"], answer["device_id"]
        profile = f"{V3}/profile/{user_id}"
        open_to_them: list[tuple[str, str, Any]] = [
            ("GET", f"{V3}/devices", None),
            ("PUT", f"{V3}/devices/{device}", {"display_name": "Kiosk"}),
            ("PUT", f"{profile}/displayname", {"displayname": "Visitor"}),
            ("DELETE", f"{profile}/displayname", None),
        ]
        for method, path, body in open_to_them:
            self.assertEqual((await client.request(method, path, body)).status, 200, path)
        closed: list[tuple[str, str, Any]] = [
            ("GET", f"{V3}/capabilities", None),
            ("POST", f"{V3}/account/password", {"new_password": "x"}),
            ("POST", f"{V3}/account/deactivate", {}),
            ("DELETE", f"{V3}/devices/{device}", None),
            ("POST", f"{V3}/delete_devices", {"devices": []}),
            ("PUT", f"{profile}/avatar_url", {"avatar_url": "mxc://hearth.test/a"}),
            ("DELETE", f"{profile}/m.tz", None),
            ("POST", f"{V3}/user/{user_id}/openid/request_token", {}),
            ("GET", f"{V3}/voip/turnServer", None),
            ("POST", "/_matrix/client/v1/login/get_token", {}),
        ]
        for method, path, body in closed:
            status, refused = await client.request(method, path, body)
            self.assertEqual((status, refused["errcode"]), (403, "M_GUEST_ACCESS_FORBIDDEN"), path)

    async def test_upgrade(self) -> None:
        """Shows UIA-14."""
        server = await make_user_server(self)
        answer = await self.guest(server)
        localpart = answer["user_id"][1:].partition(":")[0]
        token = {"guest_access_token": answer["access_token"]}
        status, refused = await register(server, username="another", **token)
        self.assertEqual((status, refused["errcode"]), (400, "M_INVALID_USERNAME"))
        status, refused = await register(server, **token)
        self.assertEqual((status, refused["errcode"]), (400, "M_MISSING_PARAM"))
        status, refused = await register(server, username=localpart)
        self.assertEqual((status, refused["errcode"]), (400, "M_USER_IN_USE"))
        alice = await server.add_user()
        for wrong in ("nonsense", alice.token):
            status, refused = await register(server, username=localpart, guest_access_token=wrong)
            self.assertEqual((status, refused["errcode"]), (403, "M_FORBIDDEN"))
        status, upgraded = await register(server, username=localpart, **token)
        self.assertEqual((status, upgraded["user_id"]), (200, answer["user_id"]))
        for each in (upgraded["access_token"], answer["access_token"]):
            _, known = await server.client.with_token(each).get(f"{V3}/account/whoami")
            self.assertNotIn("is_guest", {key for key, value in known.items() if value is True})
        await server.log_in(localpart, "wonderland")

    async def test_refused(self) -> None:
        server = await make_user_server(self, rules=RegistrationRules(enabled=True))
        status, answer = await server.client.post(REGISTER, {}, query={"kind": "guest"})
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        closed = await make_user_server(self, rules=RegistrationRules(guests=True))
        await self.guest(closed)

    def test_rules_of_the_default(self) -> None:
        self.assertEqual(RegistrationRules().flows, [])
        self.assertEqual(OPEN.flows, [["m.login.dummy"]])
