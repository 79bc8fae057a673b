"""What application services are asked: pings, users and aliases, networks."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.appservices import calls
from tests.homeserver.appservices.bridge_case import BridgeCase
from tests.support.appservices import Service, Told

PING = "/_matrix/client/v1/appservice/{}/ping"


class PingTest(BridgeCase):
    async def test_ping(self) -> None:
        """Shows AS-8."""
        await self.prepare()
        answer = await self.irc.call("POST", PING.format("irc"), {"transaction_id": "t1"})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertGreaterEqual(answer.body["duration_ms"], 0)
        [told] = [each for each in self.bridge.told if each.path.endswith("/ping")]
        self.assertEqual(told.path, "/base/_matrix/app/v1/ping")
        self.assertEqual((told.body, told.token), ({"transaction_id": "t1"}, "hs-token-of-irc"))
        old = "/_matrix/client/unstable/fi.mau.msc2659/appservice/irc/ping"
        self.assertEqual((await self.irc.call("POST", old, {})).status, 200)

    async def test_failures(self) -> None:
        """Shows AS-8: what went wrong is told."""
        await self.prepare()
        self.bridge.answers.append(lambda told: (401, {"errcode": "M_UNKNOWN_TOKEN"}))
        answer = await self.irc.call("POST", PING.format("irc"), {})
        self.assertEqual((answer.status, answer.body["errcode"]), (502, "M_BAD_STATUS"))
        self.assertEqual(answer.body["status"], 401)
        self.assertIn("M_UNKNOWN_TOKEN", answer.body["body"])
        answer = await self.irc.call("POST", PING.format("other"), {})
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        user = await self.server.register()
        status, body = await user.call("POST", PING.format("irc"), {})
        self.assertEqual((status, body["errcode"]), (403, "M_FORBIDDEN"))
        await self.bridge.stop()
        answer = await self.irc.call("POST", PING.format("irc"), {})
        self.assertEqual((answer.status, answer.body["errcode"]), (502, "M_CONNECTION_FAILED"))
        self.bridge.come_back()
        self.bridge.silent = True
        self.patch(calls, "QUERY_TIMEOUT_S", 0.05)
        answer = await self.irc.call("POST", PING.format("irc"), {})
        self.assertEqual((answer.status, answer.body["errcode"]), (504, "M_CONNECTION_TIMEOUT"))

    async def test_no_url(self) -> None:
        """Shows AS-8."""
        await self.prepare(url=None)
        answer = await self.irc.call("POST", PING.format("irc"), {})
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_URL_NOT_SET"))
        room_id = await self.room()
        self.assertTrue(room_id)
        self.assertEqual(self.bridge.told, [])


class QueriesTest(BridgeCase):
    async def test_alias(self) -> None:
        """Shows AS-7: an alias that the service makes when somebody asks for it."""
        await self.prepare()
        user = await self.server.register()

        def answer(told: Told) -> Any:
            if "/rooms/" not in told.path or not told.path.endswith("%23_irc_den%3Ahearth.test"):
                return None
            body = {"room_alias_name": "_irc_den", "preset": "public_chat"}

            async def make() -> tuple[int, Any]:
                made = await self.irc.call("POST", "/createRoom", body)
                assert made.status == 200, made.body
                return 200, {}

            return Deferred.fromCoroutine(make())

        self.bridge.answers.append(answer)
        found = await user.ok("POST", "/join/%23_irc_den:hearth.test", {})
        self.assertTrue(found["room_id"])
        asked = [each.path for each in self.bridge.told if "/rooms/" in each.path]
        self.assertEqual(asked, ["/base/_matrix/app/v1/rooms/%23_irc_den%3Ahearth.test"])
        await user.ok("GET", "/directory/room/%23_irc_den:hearth.test")
        for alias in ("_irc_none", "elsewhere"):
            status, body = await user.call("GET", f"/directory/room/%23{alias}:hearth.test")
            self.assertEqual((status, body["errcode"]), (404, "M_NOT_FOUND"))
        asked = [each.path for each in self.bridge.told if "/rooms/" in each.path]
        self.assertEqual(len(asked), 2)

    async def test_user(self) -> None:
        """Shows AS-7: a user whom the service makes when somebody invites them."""
        await self.prepare()
        user = await self.server.register()

        def answer(told: Told) -> Any:
            if "/users/%40_irc_new" not in told.path:
                return None

            async def make() -> tuple[int, Any]:
                await self.irc.register(told.path.rpartition("%40")[2].partition("%3A")[0])
                return 200, {}

            return Deferred.fromCoroutine(make())

        self.bridge.answers.append(answer)
        room_id = await user.create_room(invite=["@_irc_new1:hearth.test"])
        await user.invite(room_id, "@_irc_new2:hearth.test")
        await user.invite(room_id, "@_irc_new2:hearth.test")
        await user.invite(room_id, "@somebody:hearth.test")
        asked = [each.path for each in self.bridge.told if "/users/" in each.path]
        path = "/base/_matrix/app/v1/users/%40_irc_new{}%3Ahearth.test"
        self.assertEqual(asked, [path.format(1), path.format(2)])
        for number in (1, 2):
            name = f"@_irc_new{number}:hearth.test"
            joined = await self.irc.call("POST", f"/join/{room_id}", {}, user=name)
            self.assertEqual(joined.status, 200)


class NetworksTest(BridgeCase):
    async def test_lookups(self) -> None:
        """Shows AS-7: networks are looked up where they are known."""
        await self.prepare(protocols=["irc"])
        protocol = {
            "user_fields": ["nick"],
            "location_fields": ["channel"],
            "icon": "mxc://hearth.test/irc",
            "field_types": {},
            "instances": [],
        }
        location = {"alias": "#_irc_a:hearth.test", "protocol": "irc", "fields": {"channel": "#a"}}
        person = {"userid": "@_irc_b:hearth.test", "protocol": "irc", "fields": {"nick": "b"}}
        answers = {
            "/base/_matrix/app/v1/thirdparty/protocol/irc": protocol,
            "/base/_matrix/app/v1/thirdparty/location/irc": [location],
            "/base/_matrix/app/v1/thirdparty/user/irc": [person],
            "/base/_matrix/app/v1/thirdparty/location": [location],
            "/base/_matrix/app/v1/thirdparty/user": [person],
        }
        self.bridge.answers.append(
            lambda told: (200, answers[told.path]) if told.path in answers else None
        )
        user = await self.server.register()
        found = await user.ok("GET", "/thirdparty/protocols")
        self.assertEqual(found["irc"]["user_fields"], ["nick"])
        query = {"channel": "#a"}
        self.assertEqual(await user.ok("GET", "/thirdparty/location/irc", query=query), [location])
        self.assertEqual(self.bridge.told[-1].query, query)
        self.assertEqual(await user.ok("GET", "/thirdparty/user/irc"), [person])
        query = {"alias": "#_irc_a:hearth.test"}
        self.assertEqual(await user.ok("GET", "/thirdparty/location", query=query), [location])
        query = {"userid": "@_irc_b:hearth.test"}
        self.assertEqual(await user.ok("GET", "/thirdparty/user", query=query), [person])
        await self.bridge.stop()
        status, _ = await user.call("GET", "/thirdparty/location", query=query)
        self.assertLess(status, 500)
        self.assertEqual((await Service(self.server).call("GET", "/sync")).status, 200)
