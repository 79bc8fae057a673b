"""What administrators are told of a user: sessions, rooms, account data, counts."""

from __future__ import annotations

from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.room_case import log_in, q

NOBODY = f"{V1}/users/@nobody:hearth.test"


class UserDataTest(AdminTestCase):
    async def test_sessions(self) -> None:
        """All devices under one empty name, as Synapse has it. Shows XC-4."""
        await self.prepare()
        await log_in(self.server, self.bob, "OTHER")
        path = f"{V1}/whois/{q(self.bob.user_id)}"
        answer = await self.alice.ok("GET", path)
        self.assertEqual(answer["user_id"], self.bob.user_id)
        [(name, device)] = answer["devices"].items()
        self.assertEqual(name, "")
        [session] = device["sessions"]
        self.assertEqual([each["ip"] for each in session["connections"]], ["127.0.0.1"] * 2)
        self.assertTrue(all(each["last_seen"] for each in session["connections"]))
        await self.unknown("GET", f"{V1}/whois/@nobody:hearth.test")
        await self.refused("M_INVALID_PARAM", "GET", f"{V1}/whois/@x:elsewhere")

    async def test_rooms(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        user = f"{V1}/users/{q(self.bob.user_id)}"
        joined, left = await self.bob.create_room(), await self.bob.create_room()
        await self.bob.leave(left)
        invited = await self.alice.create_room(invite=[self.bob.user_id])
        answer = await self.alice.ok("GET", f"{user}/joined_rooms")
        self.assertEqual(answer, {"joined_rooms": [joined], "total": 1})
        answer = await self.alice.ok("GET", f"{user}/memberships")
        self.assertEqual(
            answer, {"memberships": {joined: "join", left: "leave", invited: "invite"}}
        )
        for what in ("joined_rooms", "memberships"):
            await self.unknown("GET", f"{NOBODY}/{what}")
        # Users of other servers are known by their rooms.
        answer = await self.alice.ok("GET", f"{V1}/users/@x:elsewhere/memberships")
        self.assertEqual(answer, {"memberships": {}})

    async def test_account_data(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        room_id = await self.bob.create_room()
        own = f"/user/{q(self.bob.user_id)}"
        await self.bob.ok("PUT", f"{own}/account_data/a.b", {"c": 1})
        await self.bob.ok("PUT", f"{own}/rooms/{q(room_id)}/account_data/d.e", {"f": 2})
        answer = await self.alice.ok("GET", f"{V1}/users/{q(self.bob.user_id)}/accountdata")
        self.assertEqual(
            answer,
            {"account_data": {"global": {"a.b": {"c": 1}}, "rooms": {room_id: {"d.e": {"f": 2}}}}},
        )
        await self.unknown("GET", f"{NOBODY}/accountdata")
        await self.refused("M_INVALID_PARAM", "GET", f"{V1}/users/@x:elsewhere/accountdata")

    async def test_counts(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        user = f"{V1}/users/{q(self.bob.user_id)}"
        room_id = await self.bob.create_room(invite=[self.alice.user_id])
        await self.bob.set_state(room_id, "m.room.member", {"membership": "join"}, self.bob.user_id)
        await self.bob.leave(await self.bob.create_room())
        counts = {"sent_invite_count": "invite_count"}
        name = "cumulative_joined_room_count"
        counts[name] = name
        for path, key in counts.items():
            number = 1 if key == "invite_count" else 2
            answer = await self.alice.ok("GET", f"{user}/{path}?from_ts=0")
            self.assertEqual(answer, {key: number})
            answer = await self.alice.ok("GET", f"{user}/{path}?from_ts=9000000000000")
            self.assertEqual(answer, {key: 0})
            await self.refused("M_MISSING_PARAM", "GET", f"{user}/{path}")
            await self.refused("M_INVALID_PARAM", "GET", f"{user}/{path}?from_ts=x")
            await self.unknown("GET", f"{NOBODY}/{path}?from_ts=0")
