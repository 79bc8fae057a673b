"""Restricted joins and knocks."""

from __future__ import annotations

from typing import Any

from tests.support.membership_case import MEMBER, MembershipCase
from tests.support.room_state import log_of, stripped_state_of


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
