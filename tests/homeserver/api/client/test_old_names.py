"""Names from before the specification had them; whois."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.users.accounts import Accounts
from tests.support.room_case import RoomTestCase, q
from tests.support.server import make_server

UNSTABLE = "/_matrix/client/unstable"


class OldPathsTest(RoomTestCase):
    """Shows XC-3."""

    async def test_paths(self) -> None:
        """Old paths answer as the stable ones do."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        room = q(self.room_id)
        v1 = "/_matrix/client/v1"
        for old, stable in (
            (
                f"{UNSTABLE}/org.matrix.msc2946/rooms/{room}/hierarchy",
                f"{v1}/rooms/{room}/hierarchy",
            ),
            (
                f"{UNSTABLE}/org.matrix.msc3030/rooms/{room}/timestamp_to_event?ts=1&dir=f",
                f"{v1}/rooms/{room}/timestamp_to_event?ts=1&dir=f",
            ),
            (
                f"{UNSTABLE}/org.matrix.msc3856/rooms/{room}/threads",
                f"{v1}/rooms/{room}/threads",
            ),
            (
                f"{UNSTABLE}/rooms/{room}/relations/{q(event_id)}",
                f"{v1}/rooms/{room}/relations/{q(event_id)}",
            ),
            (
                f"{UNSTABLE}/org.matrix.msc2432/rooms/{room}/aliases",
                f"/_matrix/client/v3/rooms/{room}/aliases",
            ),
            (
                f"{UNSTABLE}/uk.tcpip.msc4133/profile/{q(self.alice.user_id)}/displayname",
                f"/_matrix/client/v3/profile/{q(self.alice.user_id)}/displayname",
            ),
        ):
            expected = await self.alice.call("GET", stable)
            self.assertIn(expected.status, (200, 404), expected)
            self.assertEqual(await self.alice.call("GET", old), expected)
        for old in (
            f"{UNSTABLE}/im.nheko.summary/summary/{room}",
            f"{UNSTABLE}/im.nheko.summary/rooms/{room}/summary",
        ):
            summary = await self.alice.ok("GET", old)
            self.assertEqual(summary["room_id"], self.room_id)
        token = await self.alice.call("POST", f"{UNSTABLE}/org.matrix.msc3882/login/get_token", {})
        self.assertEqual((token.status, "flows" in token.body), (401, True))

    async def test_r0(self) -> None:
        """Whatever is below v3 answers below r0."""
        await self.start()
        for path in (
            "/account/whoami",
            f"/rooms/{q(self.room_id)}/joined_members",
            "/joined_rooms",
        ):
            expected = await self.alice.ok("GET", path)
            self.assertEqual(await self.alice.ok("GET", f"/_matrix/client/r0{path}"), expected)
        room_id = (await self.alice.ok("POST", "/_matrix/client/r0/createRoom", {}))["room_id"]
        path = f"/_matrix/client/r0/rooms/{q(room_id)}/send/m.room.message/1"
        await self.alice.ok("PUT", path, {"msgtype": "m.text", "body": "x"})

    async def test_state_after(self) -> None:
        """Asked for by its old name it has its old name."""
        await self.start()
        for name, field in (
            ("use_state_after", "state_after"),
            ("org.matrix.msc4222.use_state_after", "org.matrix.msc4222.state_after"),
        ):
            room = (await self.alice.sync(**{name: "true"}))["rooms"]["join"][self.room_id]
            self.assertIn(field, room)
            self.assertEqual([each for each in room if "state" in each], [field])

    async def test_features(self) -> None:
        """Clients find by name what they look for."""
        await self.start()
        features = (await self.alice.ok("GET", "/_matrix/client/versions"))["unstable_features"]
        for name in (
            "org.matrix.simplified_msc3575",
            "org.matrix.msc4140",
            "org.matrix.msc4143",
            "org.matrix.msc4108",
            "org.matrix.msc4306",
            "org.matrix.e2e_cross_signing",
            "org.matrix.msc4222",
            "org.matrix.msc3030",
            "uk.half-shot.msc2666.query_mutual_rooms",
        ):
            self.assertIs(features[name], True, name)


class WhoisTest(TestCase):
    async def test_whois(self) -> None:
        """A user sees their own sessions, administrators everybody's."""
        server = await make_server(self, presence={"enabled": False})
        alice, bob = await server.register("alice"), await server.register("bob")
        path = f"/admin/whois/{q(alice.user_id)}"
        found: Any = await alice.ok("GET", path)
        self.assertEqual(
            (found["user_id"], list(found["devices"])), (alice.user_id, [alice.device_id])
        )
        (connection,) = found["devices"][alice.device_id]["sessions"][0]["connections"]
        self.assertEqual(connection["ip"], "127.0.0.1")
        self.assertGreater(connection["last_seen"], 0)
        answer = await bob.call("GET", path)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        await server.homeserver.services[Accounts].set_admin(bob.user_id, True)
        self.assertEqual((await bob.ok("GET", path))["user_id"], alice.user_id)
        answer = await bob.call("GET", "/admin/whois/@nobody:hearth.test")
        self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
