"""Inviting, joining, leaving, kicking, banning, forgetting."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import deferLater

from homeserver.rooms.guests import GuestAccess
from tests.support.membership_case import MEMBER, MembershipCase
from tests.support.room_state import log_of, membership_of, stripped_state_of


class InviteTest(MembershipCase):
    async def test_inviting(self) -> None:
        """Shows ROOM-6."""
        await self.set_up()
        room_id = await self.alice.create_room(preset="private_chat")
        path = f"/rooms/{room_id}/invite"
        await self.alice.ok("POST", path, {"user_id": self.bob.user_id, "reason": "tea"})
        self.assertEqual(
            await self.member(room_id, self.bob), {"membership": "invite", "reason": "tea"}
        )
        # One who is only invited cannot invite others.
        await self.refused(self.bob, path, {"user_id": self.carol.user_id})
        await self.bob.join(room_id)
        await self.refused(self.alice, path, {"user_id": self.bob.user_id})
        await self.refused(self.alice, path, {"user_id": self.alice.user_id})
        await self.alice.ok("POST", f"/rooms/{room_id}/ban", {"user_id": self.carol.user_id})
        await self.refused(self.alice, path, {"user_id": self.carol.user_id})

    async def test_inviting_needs_its_level(self) -> None:
        """Shows ROOM-6."""
        await self.set_up()
        room_id = await self.alice.create_room(
            preset="public_chat", power_level_content_override={"invite": 50}
        )
        await self.bob.join(room_id)
        await self.refused(self.bob, f"/rooms/{room_id}/invite", {"user_id": self.carol.user_id})
        await self.is_(room_id, self.carol, None)

    async def test_invites_carry_stripped_state(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room(preset="private_chat", name="Tea")
        await self.alice.invite(room_id, self.bob.user_id)
        stripped = await stripped_state_of(self.server, room_id, self.bob.user_id)
        assert stripped is not None
        found = {(event["type"], event["state_key"]): event["content"] for event in stripped}
        self.assertEqual(found[("m.room.name", "")], {"name": "Tea"})
        self.assertEqual(found[("m.room.join_rules", "")], {"join_rule": "invite"})
        self.assertEqual(found[(MEMBER, self.bob.user_id)], {"membership": "invite"})
        self.assertIn((MEMBER, self.alice.user_id), found)
        self.assertIn(("m.room.create", ""), found)

    async def test_bad_bodies(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room()
        path = f"/rooms/{room_id}/invite"
        for body, errcode in (
            ({}, "M_MISSING_PARAM"),
            ({"user_id": 1}, "M_BAD_JSON"),
            ({"user_id": "bob"}, "M_INVALID_PARAM"),
            ({"user_id": "@bob"}, "M_INVALID_PARAM"),
            ({"user_id": self.bob.user_id, "reason": 1}, "M_BAD_JSON"),
            ({"medium": "email", "address": "a@b.test"}, "M_INVALID_PARAM"),
            ([], "M_BAD_JSON"),
        ):
            await self.refused(self.alice, path, body, 400, errcode)
        body = {"user_id": self.bob.user_id}
        await self.refused(self.alice, "/rooms/!nowhere:hearth.test/invite", body)
        await self.refused(self.alice, "/rooms/nowhere/invite", body, 400, "M_INVALID_PARAM")


class JoinTest(MembershipCase):
    async def test_joining_twice_changes_nothing(self) -> None:
        """Shows ROOM-7."""
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat", room_alias_name="tea")
        for path in (f"/join/{room_id}", "/join/%23tea:hearth.test", f"/rooms/{room_id}/join"):
            self.assertEqual(await self.bob.ok("POST", path, {}), {"room_id": room_id})
        log = await log_of(self.server, room_id)
        self.assertEqual(sum(event.state_key == self.bob.user_id for event in log), 1)

    async def test_custom_content_and_names_of_one_room_survive(self) -> None:
        """Shows ROOM-7."""
        await self.set_up()
        await self.bob.ok("PUT", f"/profile/{self.bob.user_id}/displayname", {"displayname": "Bob"})
        room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.ok("POST", f"/join/{room_id}", {"org.example.x": 1, "reason": "tea"})
        self.assertEqual(
            await self.member(room_id, self.bob),
            {"membership": "join", "displayname": "Bob", "org.example.x": 1, "reason": "tea"},
        )
        other_id = await self.alice.create_room(preset="public_chat")
        await self.bob.set_state(
            other_id,
            MEMBER,
            {"membership": "join", "displayname": "Bobby", "org.example.y": 2},
            self.bob.user_id,
        )
        self.assertEqual(
            await self.member(other_id, self.bob),
            {"membership": "join", "displayname": "Bobby", "org.example.y": 2},
        )

    async def test_who_may_join(self) -> None:
        await self.set_up()
        private = await self.alice.create_room(preset="private_chat")
        await self.refused(self.bob, f"/join/{private}", {})
        await self.refused(self.bob, "/join/!nowhere:hearth.test", {}, 404, "M_NOT_FOUND")
        await self.refused(self.bob, "/join/%23no:hearth.test", {}, 404, "M_NOT_FOUND")
        await self.refused(self.bob, "/join/nowhere", {}, 400, "M_INVALID_PARAM")
        await self.refused(self.bob, "/join/%40bob:hearth.test", {}, 400, "M_INVALID_PARAM")
        await self.refused(self.bob, f"/join/{private}", {"reason": 1}, 400, "M_BAD_JSON")
        await self.refused(self.bob, f"/join/{private}", [], 400, "M_BAD_JSON")
        await self.refused(
            self.bob, f"/join/{private}", {"third_party_signed": {}}, 400, "M_INVALID_PARAM"
        )
        await self.alice.invite(private, self.bob.user_id)
        await self.bob.join(private)

    async def test_a_member_event_speaks_for_its_sender_alone(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat")
        path = f"/rooms/{room_id}/state/{MEMBER}/{self.bob.user_id}"
        for content, status in (
            ({"membership": "join"}, 403),
            ({"membership": "knock"}, 403),
            ({"membership": "party"}, 400),
            ({"membership": 1}, 400),
            ({}, 400),
        ):
            self.assertEqual((await self.alice.call("PUT", path, content)).status, status)
        await self.is_(room_id, self.bob, None)


class LeaveTest(MembershipCase):
    async def test_leaving_a_room_an_invite_and_a_knock(self) -> None:
        """Shows ROOM-10."""
        await self.set_up()
        room_id = await self.alice.create_room(
            initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
        )
        path = f"/rooms/{room_id}/leave"
        await self.refused(self.bob, path, {})
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.ok("POST", path, {"reason": "no"})
        self.assertEqual(
            await self.member(room_id, self.bob), {"membership": "leave", "reason": "no"}
        )
        await self.bob.ok("POST", path, {})
        await self.bob.ok("POST", f"/knock/{room_id}", {})
        await self.bob.ok("POST", path)
        await self.is_(room_id, self.bob, "leave")
        await self.alice.leave(room_id)
        self.assertEqual(await self.alice.ok("GET", "/joined_rooms"), {"joined_rooms": []})

    async def test_forgetting(self) -> None:
        """Shows ROOM-10."""
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat")
        path = f"/rooms/{room_id}/forget"
        await self.refused(self.bob, path, {}, 404, "M_NOT_FOUND")
        await self.bob.join(room_id)
        await self.refused(self.bob, path, {}, 400, "M_UNKNOWN")
        await self.bob.leave(room_id)
        messages = f"/rooms/{room_id}/messages"
        await self.bob.ok("GET", messages, query={"dir": "b"})
        await self.bob.ok("POST", path, {})
        await self.bob.ok("POST", path)
        answer = await self.bob.call("GET", messages, query={"dir": "b"})
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        await self.bob.join(room_id)
        await self.refused(self.bob, path, {}, 400, "M_UNKNOWN")
        await self.refused(self.bob, "/rooms/!no:hearth.test/forget", {}, 404, "M_NOT_FOUND")

    async def test_a_closed_account_leaves_all_rooms(self) -> None:
        await self.set_up()
        joined = [await self.alice.create_room(preset="public_chat") for _ in range(3)]
        for room_id in joined:
            await self.bob.join(room_id)
        invited = await self.alice.create_room()
        await self.alice.invite(invited, self.bob.user_id)
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "wonderland",
        }
        answer = await self.bob.call("POST", "/account/deactivate", {"auth": auth})
        if answer.status == 401:
            auth["session"] = answer.body["session"]
            await self.bob.ok("POST", "/account/deactivate", {"auth": auth})
        # A job leaves the rooms after the answer, so one waits for it.
        for room_id in [*joined, invited]:
            while await membership_of(self.server, room_id, self.bob.user_id) != "leave":
                await deferLater(reactor, 0.02, lambda: None)


class ModerationTest(MembershipCase):
    async def test_bans(self) -> None:
        """Shows ROOM-11."""
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat")
        bob = {"user_id": self.bob.user_id}
        await self.refused(self.alice, f"/rooms/{room_id}/unban", bob)
        await self.bob.join(room_id)
        await self.refused(self.alice, f"/rooms/{room_id}/unban", bob)
        await self.alice.ok("POST", f"/rooms/{room_id}/ban", {**bob, "reason": "spam"})
        self.assertEqual(
            await self.member(room_id, self.bob), {"membership": "ban", "reason": "spam"}
        )
        await self.refused(self.bob, f"/join/{room_id}", {})
        await self.refused(self.bob, f"/rooms/{room_id}/leave", {})
        await self.refused(self.alice, f"/rooms/{room_id}/kick", bob)
        await self.alice.ok("POST", f"/rooms/{room_id}/unban", bob)
        await self.is_(room_id, self.bob, "leave")
        await self.bob.join(room_id)

    async def test_somebody_who_never_came_can_be_banned(self) -> None:
        """Shows ROOM-11."""
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat")
        await self.alice.ok("POST", f"/rooms/{room_id}/ban", {"user_id": "@mallory:else.test"})
        self.assertEqual(await membership_of(self.server, room_id, "@mallory:else.test"), "ban")

    async def test_only_those_present_are_kicked(self) -> None:
        """Shows AUTH-9."""
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat")
        path, bob = f"/rooms/{room_id}/kick", {"user_id": self.bob.user_id}
        await self.refused(self.alice, path, bob)
        await self.bob.join(room_id)
        await self.alice.ok("POST", path, {**bob, "reason": "bye"})
        self.assertEqual(
            await self.member(room_id, self.bob), {"membership": "leave", "reason": "bye"}
        )
        await self.refused(self.alice, path, bob)
        state = f"/rooms/{room_id}/state/{MEMBER}/{self.bob.user_id}"
        answer = await self.alice.call("PUT", state, {"membership": "leave"})
        self.assertEqual(answer.status, 403)

    async def test_rights_of_moderators(self) -> None:
        """Shows AUTH-9."""
        await self.set_up()
        room_id = await self.alice.create_room(
            room_version="11",
            preset="public_chat",
            power_level_content_override={
                "users": {
                    self.alice.user_id: 100,
                    self.bob.user_id: 60,
                    self.carol.user_id: 60,
                },
                "kick": 50,
                "ban": 70,
            },
        )
        dave = await self.server.register("dave")
        for user in (self.bob, self.carol, dave):
            await user.join(room_id)
        # Equal levels, and levels below what is needed.
        await self.refused(self.bob, f"/rooms/{room_id}/kick", {"user_id": self.carol.user_id})
        await self.refused(self.bob, f"/rooms/{room_id}/ban", {"user_id": dave.user_id})
        await self.refused(dave, f"/rooms/{room_id}/kick", {"user_id": self.bob.user_id})
        await self.alice.ok("POST", f"/rooms/{room_id}/ban", {"user_id": dave.user_id})
        await self.refused(self.bob, f"/rooms/{room_id}/unban", {"user_id": dave.user_id})
        await self.is_(room_id, dave, "ban")

    async def test_outsiders_do_nothing_and_learn_nothing(self) -> None:
        """Shows AUTH-9."""
        await self.set_up()
        room_id = await self.alice.create_room()
        await self.alice.invite(room_id, self.carol.user_id)
        for action in ("kick", "ban", "unban", "invite"):
            answers = [
                (await self.bob.call("POST", f"/rooms/{room_id}/{action}", {"user_id": name})).body
                for name in (self.alice.user_id, self.carol.user_id, "@nobody:hearth.test")
            ]
            self.assertEqual(answers[0]["errcode"], "M_FORBIDDEN")
            self.assertEqual(answers, [answers[0]] * 3)

    async def test_bad_bodies(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room()
        for action in ("kick", "ban", "unban"):
            for body, errcode in (
                ({}, "M_MISSING_PARAM"),
                ({"user_id": None}, "M_BAD_JSON"),
                ({"user_id": "bob"}, "M_INVALID_PARAM"),
                ({"user_id": self.bob.user_id, "reason": {}}, "M_BAD_JSON"),
                ([], "M_BAD_JSON"),
            ):
                await self.refused(self.alice, f"/rooms/{room_id}/{action}", body, 400, errcode)
        await self.refused(self.alice, f"/rooms/{room_id}/leave", {"reason": 1}, 400, "M_BAD_JSON")


class GuestTest(MembershipCase):
    async def drained(self) -> None:
        await self.server.homeserver.services[GuestAccess].drained()

    async def test_guests_join_where_they_may(self) -> None:
        """Shows ROOM-12."""
        await self.set_up()
        guest = await self.guest()
        closed = await self.alice.create_room(preset="public_chat")
        await self.refused(guest, f"/join/{closed}", {}, 403, "M_GUEST_ACCESS_FORBIDDEN")
        await self.alice.set_state(closed, "m.room.guest_access", {"guest_access": "can_join"})
        await guest.join(closed)
        await self.is_(closed, guest, "join")

    async def test_guests_are_removed_when_access_is_withdrawn(self) -> None:
        """Shows ROOM-12."""
        await self.set_up()
        guest, other = await self.guest(), await self.guest()
        room_id = await self.alice.create_room(
            preset="public_chat",
            initial_state=[
                {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
            ],
        )
        await guest.join(room_id)
        await self.bob.join(room_id)
        await self.alice.invite(room_id, other.user_id)
        await self.alice.set_state(room_id, "m.room.guest_access", {"guest_access": "forbidden"})
        await self.drained()
        await self.is_(room_id, guest, "leave")
        await self.is_(room_id, other, "leave")
        await self.is_(room_id, self.bob, "join")
        await self.refused(guest, f"/join/{room_id}", {}, 403, "M_GUEST_ACCESS_FORBIDDEN")

    async def test_a_redaction_withdraws_access_too(self) -> None:
        """Shows ROOM-12."""
        await self.set_up()
        guest = await self.guest()
        room_id = await self.alice.create_room(preset="public_chat")
        event_id = await self.alice.set_state(
            room_id, "m.room.guest_access", {"guest_access": "can_join"}
        )
        await guest.join(room_id)
        event = await self.alice.send(room_id, "hello")
        await self.alice.ok("PUT", f"/rooms/{room_id}/redact/{event}/r1", {})
        await self.drained()
        await self.is_(room_id, guest, "join")
        await self.alice.ok("PUT", f"/rooms/{room_id}/redact/{event_id}/r2", {})
        await self.drained()
        await self.is_(room_id, guest, "leave")


class ProfileTest(MembershipCase):
    async def test_changes_reach_every_joined_room(self) -> None:
        """Shows ROOM-13."""
        await self.set_up()
        rooms = [await self.alice.create_room(preset="public_chat") for _ in range(3)]
        await self.bob.ok("POST", f"/join/{rooms[0]}", {"org.example.x": 1, "reason": "tea"})
        await self.bob.join(rooms[1])
        await self.bob.join(rooms[2])
        await self.bob.leave(rooms[2])
        profile = f"/profile/{self.bob.user_id}"
        await self.bob.ok("PUT", f"{profile}/displayname", {"displayname": "Bob"})
        await self.bob.ok("PUT", f"{profile}/avatar_url", {"avatar_url": "mxc://a.test/b"})
        names = {"displayname": "Bob", "avatar_url": "mxc://a.test/b"}
        self.assertEqual(
            await self.member(rooms[0], self.bob),
            {"membership": "join", "org.example.x": 1, **names},
        )
        self.assertEqual(await self.member(rooms[1], self.bob), {"membership": "join", **names})
        self.assertEqual(await self.member(rooms[2], self.bob), {"membership": "leave"})
        length = len(await log_of(self.server, rooms[0]))
        await self.bob.ok("PUT", f"{profile}/displayname", {"displayname": "Bob"})
        self.assertEqual(len(await log_of(self.server, rooms[0])), length)
