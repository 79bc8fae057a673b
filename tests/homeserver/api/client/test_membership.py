"""Joining, inviting, knocking, leaving, kicking, banning, forgetting."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.rooms.guests import GuestAccess
from tests.support.room_state import content_of, log_of, membership_of, stripped_state_of
from tests.support.server import TestServer, User, make_server

MEMBER = "m.room.member"


class MembershipCase(TestCase):
    server: TestServer
    alice: User
    bob: User
    carol: User

    async def set_up(self, **settings: Any) -> None:
        self.server = await make_server(self, **settings)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.carol = await self.server.register("carol")

    async def refused(
        self, user: User, path: str, body: Any, status: int = 403, errcode: str = "M_FORBIDDEN"
    ) -> None:
        answer = await user.call("POST", path, body)
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode), body)

    async def member(self, room_id: str, user: User) -> dict[str, Any]:
        content = await content_of(self.server, room_id, MEMBER, user.user_id)
        assert content is not None
        return content

    async def is_(self, room_id: str, user: User, membership: str | None) -> None:
        self.assertEqual(await membership_of(self.server, room_id, user.user_id), membership)

    async def guest(self) -> User:
        status, body = await self.server.client.post(
            "/_matrix/client/v3/register", {}, query={"kind": "guest"}
        )
        self.assertEqual(status, 200, body)
        return User(self.server, body["user_id"], body["access_token"], body["device_id"])


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


class RestrictedTest(MembershipCase):
    async def restricted(self, version: str, rule: str, allowed: str) -> str:
        return await self.alice.create_room(
            room_version=version,
            initial_state=[
                {
                    "type": "m.room.join_rules",
                    "content": {
                        "join_rule": rule,
                        "allow": [
                            {"type": "org.example.unknown"},
                            {"type": "m.room_membership", "room_id": allowed},
                        ],
                    },
                }
            ],
        )

    async def test_members_of_an_allowed_room_may_join(self) -> None:
        """Shows ROOM-8."""
        await self.set_up()
        space = await self.alice.create_room(preset="public_chat")
        for version, rule in (
            ("8", "restricted"),
            ("10", "knock_restricted"),
            ("12", "restricted"),
        ):
            room_id = await self.restricted(version, rule, space)
            await self.refused(self.bob, f"/join/{room_id}", {})
            await self.bob.join(space)
            await self.bob.join(room_id)
            self.assertEqual(
                await self.member(room_id, self.bob),
                {
                    "membership": "join",
                    "join_authorised_via_users_server": self.alice.user_id,
                },
            )
            await self.bob.leave(space)
            # Who is in already may speak up without the space, and not as authorised by anybody.
            await self.bob.ok(
                "PUT", f"/profile/{self.bob.user_id}/displayname", {"displayname": version}
            )
            self.assertEqual(
                await self.member(room_id, self.bob),
                {"membership": "join", "displayname": version},
            )
            await self.bob.leave(room_id)
            await self.refused(self.bob, f"/join/{room_id}", {})
            await self.bob.ok(
                "PUT", f"/profile/{self.bob.user_id}/displayname", {"displayname": ""}
            )

    async def test_an_invite_needs_no_condition(self) -> None:
        """Shows ROOM-8."""
        await self.set_up()
        space = await self.alice.create_room(preset="public_chat")
        room_id = await self.restricted("10", "restricted", space)
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.join(room_id)
        self.assertEqual(await self.member(room_id, self.bob), {"membership": "join"})

    async def test_the_key_is_not_taken_from_clients(self) -> None:
        """Shows ROOM-8."""
        await self.set_up()
        space = await self.alice.create_room(preset="public_chat")
        room_id = await self.restricted("10", "restricted", space)
        forged = {"membership": "join", "join_authorised_via_users_server": self.alice.user_id}
        path = f"/rooms/{room_id}/state/{MEMBER}/{self.bob.user_id}"
        self.assertEqual((await self.bob.call("PUT", path, forged)).status, 403)
        await self.refused(self.bob, f"/join/{room_id}", forged)

    async def test_old_versions_know_no_restricted_rooms(self) -> None:
        await self.set_up()
        space = await self.alice.create_room(preset="public_chat")
        room_id = await self.restricted("7", "restricted", space)
        await self.bob.join(space)
        await self.refused(self.bob, f"/join/{room_id}", {})

    async def test_conditions_that_mean_nothing_admit_nobody(self) -> None:
        """Shows ROOM-8."""
        await self.set_up()
        kind = "m.room_membership"
        conditions: list[Any] = [
            *(1, None, [], {}, {"type": kind}, {"type": kind, "room_id": 1}),
            {"type": kind, "room_id": "!a\0:hearth.test"},
            {"type": kind, "room_id": "nonsense"},
        ]
        allows: list[Any] = [conditions, {}, None]
        for allow in allows:
            rules = {"join_rule": "restricted", "allow": allow}
            room_id = await self.alice.create_room(
                initial_state=[{"type": "m.room.join_rules", "content": rules}]
            )
            await self.refused(self.bob, f"/join/{room_id}", {})

    async def test_somebody_must_be_able_to_invite(self) -> None:
        """Shows ROOM-8."""
        await self.set_up()
        space = await self.alice.create_room(preset="public_chat")
        room_id = await self.restricted("10", "restricted", space)
        await self.bob.join(space)
        await self.carol.join(space)
        await self.alice.set_state(
            room_id,
            "m.room.power_levels",
            {"users": {self.alice.user_id: 100}, "invite": 50},
        )
        await self.bob.join(room_id)
        await self.alice.leave(room_id)
        await self.refused(self.carol, f"/join/{room_id}", {})


class KnockTest(MembershipCase):
    async def knockable(self) -> str:
        return await self.alice.create_room(
            name="Tea",
            initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}],
        )

    async def test_knocking(self) -> None:
        """Shows ROOM-9."""
        await self.set_up()
        room_id = await self.knockable()
        await self.refused(self.bob, f"/join/{room_id}", {})
        answer = await self.bob.ok("POST", f"/knock/{room_id}", {"reason": "thirsty"})
        self.assertEqual(answer, {"room_id": room_id})
        self.assertEqual(
            await self.member(room_id, self.bob), {"membership": "knock", "reason": "thirsty"}
        )
        stripped = await stripped_state_of(self.server, room_id, self.bob.user_id)
        assert stripped is not None
        self.assertIn({"name": "Tea"}, [event["content"] for event in stripped])
        # Again: nothing new.
        length = len(await log_of(self.server, room_id))
        await self.bob.ok("POST", f"/knock/{room_id}", {})
        self.assertEqual(len(await log_of(self.server, room_id)), length)
        await self.bob.leave(room_id)
        await self.is_(room_id, self.bob, "leave")

    async def test_answers_to_a_knock(self) -> None:
        """Shows ROOM-9."""
        await self.set_up()
        room_id = await self.knockable()
        await self.bob.ok("POST", f"/knock/{room_id}", {})
        await self.alice.ok("POST", f"/rooms/{room_id}/kick", {"user_id": self.bob.user_id})
        await self.is_(room_id, self.bob, "leave")
        await self.bob.ok("POST", f"/knock/{room_id}", {})
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.join(room_id)
        await self.carol.ok("POST", f"/knock/{room_id}", {})
        await self.alice.ok("POST", f"/rooms/{room_id}/ban", {"user_id": self.carol.user_id})
        await self.refused(self.carol, f"/knock/{room_id}", {})

    async def test_where_knocks_are_not_taken(self) -> None:
        """Shows ROOM-9."""
        await self.set_up()
        private = await self.alice.create_room()
        await self.refused(self.bob, f"/knock/{private}", {})
        await self.refused(self.bob, "/knock/!nowhere:hearth.test", {}, 404, "M_NOT_FOUND")
        room_id = await self.knockable()
        await self.refused(self.alice, f"/knock/{room_id}", {})
        await self.alice.invite(room_id, self.bob.user_id)
        await self.refused(self.bob, f"/knock/{room_id}", {})
        await self.refused(self.bob, f"/knock/{room_id}", {"reason": 1}, 400, "M_BAD_JSON")


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
