"""Users of other servers leave rooms of this one, and reject its invites."""

from __future__ import annotations

from typing import Any

from tests.federation.server.scene import Scene, quoted
from tests.support.peer import make_peer


class LeaveTest(Scene):
    async def joined(self, version: str = "10") -> str:
        await self.begin()
        room_id = await self.room(version)
        status, answer = await self.send(room_id, await self.event(room_id))
        self.assertEqual(status, 200, answer)
        return room_id

    async def test_leaving(self) -> None:
        """Shows FJ-17."""
        room_id = await self.joined()
        leave = await self.event(room_id, call="make_leave")
        self.assertEqual(leave.content["membership"], "leave")
        self.assertEqual(await self.send(room_id, leave, "v2/send_leave"), (200, {}))
        self.assertEqual(await self.membership(room_id), "leave")
        self.assertEqual(await self.send(room_id, leave, "v2/send_leave"), (200, {}))

    async def test_old_servers_are_answered_in_their_form(self) -> None:
        """Shows FJ-20."""
        room_id = await self.joined("2")
        leave = await self.event(room_id, call="make_leave")
        self.assertEqual(await self.send(room_id, leave, "v1/send_leave"), (200, [200, {}]))
        self.assertEqual(await self.membership(room_id), "leave")

    async def test_rejecting_an_invite(self) -> None:
        """Shows FJ-17."""
        await self.begin()
        room_id = await self.room(preset="private_chat")
        await self.alice.invite(room_id, self.mallory)
        leave = await self.event(room_id, call="make_leave")
        self.assertEqual(await self.send(room_id, leave, "v2/send_leave"), (200, {}))
        self.assertEqual(await self.membership(room_id), "leave")

    async def test_who_is_not_there(self) -> None:
        """Shows FJ-17."""
        await self.begin()
        room_id = await self.room()
        self.refused(await self.make(room_id, call="make_leave"), 403, "M_FORBIDDEN")
        self.refused(await self.make(room_id, self.alice.user_id, "make_leave"), 403, "M_FORBIDDEN")
        self.refused(await self.make("!no:where.example", call="make_leave"), 404, "M_NOT_FOUND")

    async def test_only_own_leaves(self) -> None:
        """Shows FJ-17."""
        room_id = await self.joined()
        template, room = await self.template(room_id, call="make_leave")
        wrong: list[dict[str, Any]] = [
            {"content": {"membership": "join"}},
            {"content": {"membership": "ban"}},
            {"type": "m.room.message"},
            {"state_key": self.alice.user_id},
            {"sender": self.alice.user_id, "state_key": self.alice.user_id},
        ]
        for changes in wrong:
            event = self.sign(template, room, **changes)
            answer = await self.send(room_id, event, "v2/send_leave")
            self.refused(answer, 400, "M_INVALID_PARAM")
        good = self.sign(template, room)
        other = await make_peer(self, self.federation)
        answer = await self.send(room_id, good, "v2/send_leave", peer=other)
        self.refused(answer, 400, "M_INVALID_PARAM")
        answer = await self.send(room_id, good, "v2/send_leave", event_id="$another")
        self.refused(answer, 400, "M_INVALID_PARAM")
        self.assertEqual(await self.membership(room_id), "join")
        self.assertEqual(await self.membership(room_id, self.alice.user_id), "join")

    async def test_a_denied_server(self) -> None:
        """Shows ACL-3."""
        room_id = await self.joined()
        leave = await self.event(room_id, call="make_leave")
        await self.alice.set_state(room_id, "m.room.server_acl", {"allow": [self.hearth.name]})
        self.refused(await self.make(room_id, call="make_leave"), 403, "M_FORBIDDEN")
        self.refused(await self.send(room_id, leave, "v2/send_leave"), 403, "M_FORBIDDEN")


class KnockTest(Scene):
    async def knocking(self, version: str = "7", join_rule: str = "knock") -> str:
        await self.begin()
        room_id = await self.room(version, preset="private_chat", name="Door")
        await self.alice.set_state(room_id, "m.room.join_rules", {"join_rule": join_rule})
        return room_id

    async def test_knocking(self) -> None:
        """Shows FJ-13, FJ-17."""
        for version in ("7", "10", "11", "12"):
            room_id = await self.knocking(version)
            knock = await self.event(room_id, call="make_knock")
            self.assertEqual(knock.content["membership"], "knock")
            status, answer = await self.send(room_id, knock, "v1/send_knock")
            self.assertEqual(status, 200, answer)
            self.assertEqual(await self.membership(room_id), "knock")
            given = {pdu["type"]: pdu for pdu in answer["knock_room_state"]}
            self.assertLessEqual({"m.room.create", "m.room.name", "m.room.join_rules"}, set(given))
            for pdu in given.values():
                self.assertLessEqual({"signatures", "hashes", "auth_events"}, set(pdu))

    async def test_taking_back_a_knock(self) -> None:
        """Shows FJ-17."""
        room_id = await self.knocking("10")
        knock = await self.event(room_id, call="make_knock")
        await self.send(room_id, knock, "v1/send_knock")
        leave = await self.event(room_id, call="make_leave")
        self.assertEqual(await self.send(room_id, leave, "v2/send_leave"), (200, {}))
        self.assertEqual(await self.membership(room_id), "leave")

    async def test_rooms_that_take_no_knocks(self) -> None:
        """Shows FJ-18."""
        await self.begin()
        for version in ("6", "10"):
            room_id = await self.room(version)
            self.refused(await self.make(room_id, call="make_knock"), 403, "M_FORBIDDEN")

    async def test_versions_that_the_asking_server_does_not_know(self) -> None:
        """Shows FJ-18."""
        room_id = await self.knocking("10")
        answer = await self.make(room_id, call="make_knock", ver=["7"])
        self.refused(answer, 400, "M_INCOMPATIBLE_ROOM_VERSION")
        self.assertEqual(answer[1]["room_version"], "10")

    async def test_only_own_knocks(self) -> None:
        """Shows FJ-17."""
        room_id = await self.knocking("10")
        template, room = await self.template(room_id, call="make_knock")
        bob = f"@bob:{self.hearth.name}"
        wrong: list[dict[str, Any]] = [
            {"content": {"membership": "join"}},
            {"content": {"membership": "leave"}},
            {"type": "m.room.topic", "state_key": "", "content": {"topic": "x"}},
            {"state_key": bob},
            {"sender": bob, "state_key": bob},
        ]
        for changes in wrong:
            event = self.sign(template, room, **changes)
            answer = await self.send(room_id, event, "v1/send_knock")
            self.refused(answer, 400, "M_INVALID_PARAM")
        self.assertIsNone(await self.membership(room_id))
        self.refused(await self.make(room_id, bob, "make_knock"), 403, "M_FORBIDDEN")

    async def test_banned_users(self) -> None:
        """Shows FJ-17."""
        room_id = await self.knocking("10")
        knock = await self.event(room_id, call="make_knock")
        await self.alice.ok("POST", f"/rooms/{quoted(room_id)}/ban", {"user_id": self.mallory})
        self.refused(await self.make(room_id, call="make_knock"), 403, "M_FORBIDDEN")
        self.refused(await self.send(room_id, knock, "v1/send_knock"), 403, "M_FORBIDDEN")
        self.assertEqual(await self.membership(room_id), "ban")
