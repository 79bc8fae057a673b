"""Application services as users: whom they may be, and what is theirs alone."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.startup import CannotStart
from homeserver.users.accounts import Accounts
from tests.support.appservices import Service, registration, registration_files
from tests.support.server import TestServer, make_server

V3 = "/_matrix/client/v3"
ALICE = "@_irc_alice:hearth.test"
BOT = "@irc-bot:hearth.test"


class AppserviceCase(TestCase):
    timeout = 60
    server: TestServer
    irc: Service

    async def prepare(self, *registrations: Any, **overrides: Any) -> None:
        files = registration_files(self, *(registrations or (registration(),)))
        self.server = await make_server(self, application_service_files=files, **overrides)
        self.irc = Service(self.server)


class IdentityTest(AppserviceCase):
    async def test_registering(self) -> None:
        """Shows LOG-15, AS-6: accounts of the namespace, with or without a session."""
        await self.prepare()
        answer = await self.irc.register("_irc_alice", inhibit_login=True)
        self.assertEqual(
            (answer.status, answer.body), (200, {"user_id": ALICE, "home_server": "hearth.test"})
        )
        answer = await self.irc.register("_irc_bob", device_id="DEVICE")
        self.assertEqual((answer.status, answer.body["device_id"]), (200, "DEVICE"))
        whoami = await self.server.client.with_token(answer.body["access_token"]).get(
            f"{V3}/account/whoami"
        )
        self.assertEqual(whoami.body["user_id"], "@_irc_bob:hearth.test")
        wrong: tuple[tuple[dict[str, Any], int, str], ...] = (
            ({"username": "_irc_alice"}, 400, "M_USER_IN_USE"),
            ({"username": "carol"}, 400, "M_EXCLUSIVE"),
            ({"username": "_irc_ä"}, 400, "M_INVALID_USERNAME"),
            ({}, 400, "M_MISSING_PARAM"),
            ({"username": 1}, 400, "M_BAD_JSON"),
        )
        for changed, status, errcode in wrong:
            body = {"type": "m.login.application_service", **changed}
            answer = await self.irc.call("POST", "/register", body)
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), body)
        body = {"type": "m.login.application_service", "username": "_irc_x"}
        status, answer_body = await self.server.client.post(f"{V3}/register", body)
        self.assertEqual((status, answer_body["errcode"]), (401, "M_MISSING_TOKEN"))
        user = await self.server.register()
        status, answer_body = await user.call("POST", "/register", body)
        self.assertEqual((status, answer_body["errcode"]), (403, "M_FORBIDDEN"))

    async def test_masquerading(self) -> None:
        """Shows AS-5: in the service's own name, or as a user of its namespace."""
        await self.prepare()
        await self.irc.register("_irc_alice", inhibit_login=True)
        await self.server.register("carol")
        whoami = (await self.irc.call("GET", "/account/whoami")).body
        self.assertEqual(whoami, {"user_id": BOT, "is_guest": False})
        whoami = (await self.irc.call("GET", "/account/whoami", user=ALICE)).body
        self.assertEqual(whoami, {"user_id": ALICE, "is_guest": False})
        for user in (
            "@carol:hearth.test",
            "@_irc_nobody:hearth.test",
            "@_irc_alice:elsewhere.test",
            "_irc_alice",
        ):
            answer = await self.irc.call("GET", "/account/whoami", user=user)
            self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"), user)
        answer = await self.irc.call("GET", "/account/whoami", user="a\x00")
        self.assertEqual(answer.status, 400)
        other = await self.server.client.with_token("as-token-of-other").get(f"{V3}/account/whoami")
        self.assertEqual((other.status, other.body["errcode"]), (401, "M_UNKNOWN_TOKEN"))
        accounts = self.server.homeserver.services[Accounts]
        await accounts.deactivate(accounts.new_user_id("_irc_alice"))
        answer = await self.irc.call("GET", "/account/whoami", user=ALICE)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_USER_DEACTIVATED"))

    async def test_token_in_the_query(self) -> None:
        """The token of a service counts there too, that of a user does not."""
        await self.prepare()
        user = await self.server.register()
        for token, status in (("as-token-of-irc", 200), (user.token, 401), ("", 401)):
            query = {"access_token": token}
            answer = await self.server.client.get(f"{V3}/account/whoami", query=query)
            self.assertEqual(answer.status, status)
        body = {"type": "m.login.application_service", "username": "_irc_x"}
        query = {"access_token": "as-token-of-irc"}
        answer = await self.server.client.post(f"{V3}/register", body, query=query)
        self.assertEqual(answer.status, 200)

    async def test_devices(self) -> None:
        """Shows AS-5, AS-9: devices are made, used and deleted without authentication."""
        await self.prepare()
        await self.irc.register("_irc_alice", inhibit_login=True)
        path = "/devices/PHONE"
        answer = await self.irc.call("PUT", path, {"display_name": "Phone"}, user=ALICE)
        self.assertEqual((answer.status, answer.body), (201, {}))
        answer = await self.irc.call("PUT", path, {"display_name": "P2"}, user=ALICE)
        self.assertEqual(answer.status, 200)
        for name in ("device_id", "org.matrix.msc3202.device_id"):
            whoami = await self.irc.call("GET", "/account/whoami", user=ALICE, **{name: "PHONE"})
            self.assertEqual(
                whoami.body, {"user_id": ALICE, "device_id": "PHONE", "is_guest": False}
            )
            answer = await self.irc.call("GET", "/account/whoami", user=ALICE, **{name: "NONE"})
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_UNKNOWN_DEVICE"))
        answer = await self.irc.call("GET", path, user=ALICE)
        self.assertEqual(answer.body["display_name"], "P2")
        body = {"devices": ["PHONE"]}
        answer = await self.irc.call("POST", "/delete_devices", body, user=ALICE)
        self.assertEqual((answer.status, answer.body), (200, {}))
        answer = await self.irc.call("DELETE", path, {}, user=ALICE)
        self.assertEqual(answer.status, 200)
        user = await self.server.register()
        self.assertEqual((await user.call("PUT", path, {})).status, 404)
        self.assertEqual((await user.call("DELETE", path, {})).status, 401)

    async def test_login(self) -> None:
        """Shows LOG-15: only of users in the namespace."""
        await self.prepare(registration(), registration("xmpp"))
        await self.irc.register("_irc_alice", inhibit_login=True)
        await self.server.register("carol")
        flows = (await self.server.client.get(f"{V3}/login")).body["flows"]
        self.assertIn({"type": "m.login.application_service"}, flows)

        def body(user: str) -> dict[str, Any]:
            identifier = {"type": "m.id.user", "user": user}
            return {"type": "m.login.application_service", "identifier": identifier}

        answer = await self.irc.call("POST", "/login", body("_irc_alice"))
        self.assertEqual((answer.status, answer.body["user_id"]), (200, ALICE))
        client = self.server.client.with_token(answer.body["access_token"])
        self.assertEqual((await client.get(f"{V3}/account/whoami")).body["user_id"], ALICE)
        answer = await self.irc.call("POST", "/login", body(BOT))
        self.assertEqual((answer.status, answer.body["user_id"]), (200, BOT))
        for user, status, errcode in (
            ("carol", 400, "M_EXCLUSIVE"),
            ("@xmpp-bot:hearth.test", 400, "M_EXCLUSIVE"),
            ("_irc_nobody", 403, "M_FORBIDDEN"),
            ("@_irc_alice:elsewhere.test", 403, "M_FORBIDDEN"),
        ):
            answer = await self.irc.call("POST", "/login", body(user))
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), user)
        for token, status, errcode in (
            (None, 401, "M_MISSING_TOKEN"),
            ("something", 403, "M_FORBIDDEN"),
        ):
            client = self.server.client.with_token(token)
            found = await client.post(f"{V3}/login", body("_irc_alice"))
            self.assertEqual((found.status, found.body["errcode"]), (status, errcode))

    async def test_sender_is_made(self) -> None:
        """Its own user is there from the start, and after a restart."""
        await self.prepare()
        for _ in range(2):
            answer = await self.irc.call("POST", "/createRoom", {})
            self.assertEqual(answer.status, 200)
            await self.server.restart()
            self.irc = Service(self.server)


class ExclusiveTest(AppserviceCase):
    async def test_users(self) -> None:
        """Shows AS-6: others cannot have what is a service's alone."""
        await self.prepare(registration(), registration("xmpp"))
        for name in ("_irc_carol", "_IRC_carol"):
            status, answer = await self.server.client.post(
                f"{V3}/register", {"username": name, "password": "wonderland"}
            )
            self.assertEqual((status, answer["errcode"]), (400, "M_EXCLUSIVE"))
        query = {"username": "_irc_carol"}
        status, answer = await self.server.client.get(f"{V3}/register/available", query=query)
        self.assertEqual((status, answer["errcode"]), (400, "M_EXCLUSIVE"))
        found = await Service(self.server, "xmpp").register("_irc_carol")
        self.assertEqual((found.status, found.body["errcode"]), (400, "M_EXCLUSIVE"))

    async def test_shared_users(self) -> None:
        """A namespace that is not exclusive keeps nobody out."""
        users = [{"exclusive": False, "regex": "@shared_.*"}]
        await self.prepare(
            registration(namespaces={"users": users}),
            registration("xmpp", namespaces={"users": users}),
        )
        await self.server.register("shared_a")
        self.assertEqual((await self.irc.register("shared_b")).status, 200)
        other = Service(self.server, "xmpp")
        self.assertEqual((await other.register("shared_c")).status, 200)
        answer = await self.irc.call("GET", "/account/whoami", user="@shared_c:hearth.test")
        self.assertEqual(answer.status, 200)

    async def test_aliases(self) -> None:
        """Shows AS-6: a service makes and removes those of its namespace, and no others."""
        await self.prepare()
        user = await self.server.register()
        room_id = await user.create_room(preset="public_chat")
        path = "/directory/room/%23{}:hearth.test"
        mine, other = path.format("_irc_a"), path.format("b")
        body = {"room_id": room_id}
        status, answer = await user.call("PUT", mine, body)
        self.assertEqual((status, answer["errcode"]), (400, "M_EXCLUSIVE"))
        status, answer = await user.call("POST", "/createRoom", {"room_alias_name": "_irc_a"})
        self.assertEqual((status, answer["errcode"]), (400, "M_EXCLUSIVE"))
        await user.ok("PUT", other, body)
        await self.irc.call("POST", f"/join/{room_id}", {})
        found = await self.irc.call("PUT", path.format("c"), body)
        self.assertEqual((found.status, found.body["errcode"]), (400, "M_EXCLUSIVE"))
        found = await self.irc.call("DELETE", other)
        self.assertEqual((found.status, found.body["errcode"]), (400, "M_EXCLUSIVE"))
        self.assertEqual((await self.irc.call("PUT", mine, body)).status, 200)
        await self.irc.register("_irc_alice", inhibit_login=True)
        self.assertEqual((await self.irc.call("DELETE", mine, user=ALICE)).status, 200)
        answer = await self.irc.call("POST", "/createRoom", {"room_alias_name": "_irc_d"})
        self.assertEqual(answer.status, 200)


class ActingTest(AppserviceCase):
    async def test_rooms(self) -> None:
        """Shows LOG-15: sending as users, at other times; what needs a device says so."""
        await self.prepare()
        await self.irc.register("_irc_alice", inhibit_login=True)
        created = await self.irc.call("POST", "/createRoom", {"preset": "public_chat"}, user=ALICE)
        room_id = created.body["room_id"]
        body = {"msgtype": "m.text", "body": "hello"}
        path = f"/rooms/{room_id}/send/m.room.message/1"
        sent = await self.irc.call("PUT", path, body, user=ALICE, ts=1234567)
        again = await self.irc.call("PUT", path, body, user=ALICE, ts=1234567)
        self.assertEqual(sent.body, again.body)
        event = await self.irc.call(
            "GET", f"/rooms/{room_id}/event/{sent.body['event_id']}", user=ALICE
        )
        self.assertEqual((event.body["origin_server_ts"], event.body["sender"]), (1234567, ALICE))
        user = await self.server.register()
        await user.join(room_id)
        answer = await user.ok("PUT", path, body, query={"ts": 1234567})
        event_body = await user.ok("GET", f"/rooms/{room_id}/event/{answer['event_id']}")
        self.assertNotEqual(event_body["origin_server_ts"], 1234567)
        self.assertEqual((await self.irc.call("POST", f"/join/{room_id}", {})).status, 200)
        for method, where, content in (
            ("GET", "/sync", None),
            ("GET", "/joined_rooms", None),
            ("GET", "/devices", None),
            ("POST", "/keys/upload", {}),
            ("POST", "/keys/query", {"device_keys": {}}),
            ("PUT", "/sendToDevice/m.x/1", {"messages": {}}),
            ("PUT", f"/rooms/{room_id}/typing/{ALICE}", {"typing": True}),
            ("POST", f"/rooms/{room_id}/receipt/m.read/{sent.body['event_id']}", {}),
            ("PUT", f"/presence/{ALICE}/status", {"presence": "online"}),
            ("PUT", f"/profile/{ALICE}/displayname", {"displayname": "Alice (IRC)"}),
            ("POST", "/logout", {}),
            ("POST", "/logout/all", {}),
            ("GET", "/notifications", None),
            ("PUT", f"/rooms/{room_id}/redact/{sent.body['event_id']}/2", {}),
        ):
            found = await self.irc.call(method, where, content, user=ALICE)
            self.assertLess(found.status, 500, (where, found.body))
        self.assertEqual((await self.irc.call("GET", "/sync")).status, 200)

    async def test_limits(self) -> None:
        """Shows AS-10: the service itself has none; its users if the registration says so."""
        limits: dict[str, Any] = {
            "enabled": True,
            "registration": {"per_second": 0.001, "burst": 1},
            "login": {"per_second": 0.001, "burst": 1},
            "write": {"per_second": 0.001, "burst": 1},
        }
        for limited in (True, False):
            await self.prepare(registration(rate_limited=limited), rate_limits=limits)
            for index in range(4):
                self.assertEqual((await self.irc.register(f"_irc_{index}")).status, 200)
            body = {"type": "m.login.application_service", "user": "_irc_1"}
            answers = [await self.irc.call("POST", "/login", body) for _ in range(3)]
            self.assertEqual([each.status for each in answers], [200] * 3)
            for user, is_limited in ((None, False), ("@_irc_1:hearth.test", limited)):
                name = user or BOT
                path = f"/profile/{name}/displayname"
                statuses = [
                    (await self.irc.call("PUT", path, {"displayname": "x"}, user=user)).status
                    for _ in range(3)
                ]
                self.assertEqual(statuses, [200, 429, 429] if is_limited else [200] * 3)

    async def test_deactivation_and_keys(self) -> None:
        """Shows AS-9: no interactive authentication."""
        await self.prepare()
        await self.irc.register("_irc_alice", inhibit_login=True)
        answer = await self.irc.call("POST", "/account/deactivate", {}, user=ALICE)
        self.assertEqual(answer.status, 200)

    async def test_networks_of_its_own(self) -> None:
        """Shows AS-10: it lists rooms in directories of its own."""
        await self.prepare()
        room_id = (await self.irc.call("POST", "/createRoom", {})).body["room_id"]
        path = f"/directory/list/appservice/net/{room_id}"
        answer = await self.irc.call("PUT", path, {"visibility": "public"})
        self.assertEqual(answer.status, 200, answer.body)
        user = await self.server.register()
        status, body = await user.call("PUT", path, {"visibility": "public"})
        self.assertEqual((status, body["errcode"]), (403, "M_FORBIDDEN"))


class StartTest(TestCase):
    async def test_bad_files(self) -> None:
        """Shows AS-1: the server does not start, and says why."""
        for registrations, told in (
            ([registration(), registration()], "id: 'irc' and 'irc' have the same"),
            ([registration(url="x"), registration("b", id=5)], "1.yaml: id: expected text"),
            (["a: [b"], "is not YAML"),
            (["- a"], "expected keys and values"),
            (["x" * 1_100_000], "larger than"),
        ):
            files = registration_files(self, *registrations)
            with self.assertRaises(CannotStart) as caught:
                await make_server(self, application_service_files=files)
            self.assertIn(told, str(caught.exception))
        with self.assertRaises(CannotStart) as caught:
            await make_server(self, application_service_files=["/nowhere.yaml"])
        self.assertIn("/nowhere.yaml: cannot be read", str(caught.exception))
