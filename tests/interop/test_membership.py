"""Every way into and out of a room, between Hearth and Synapse, in both directions."""

from __future__ import annotations

from typing import Any

from tests.interop.account import Refused
from tests.interop.case import InteropCase, both_ways, each_version, with_versions


@both_ways(globals())
@with_versions
class Membership(InteropCase):
    @each_version()
    async def test_join_public(self, version: str) -> None:
        room_id = await self.room(version)
        before = await self.alice.send(room_id, "before")
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")
        await self.agree(room_id, self.alice, self.bob)
        for sender, reader in ((self.alice, self.bob), (self.bob, self.alice)):
            event_id = await sender.send(room_id, f"from {sender.user_id}")
            event = await reader.sees(room_id, event_id)
            self.assertEqual(event["content"]["body"], f"from {sender.user_id}")
        history = [event["event_id"] for event in await self.bob.history(room_id)]
        self.assertIn(before, history)

    @each_version()
    async def test_invite_and_join(self, version: str) -> None:
        room_id = await self.room(version, preset="private_chat", name="Parlour")
        with self.assertRaises(Refused):
            await self.bob.join(room_id, self.home.name)
        await self.alice.invite(room_id, self.bob.user_id)
        invite = await self.bob.invited(room_id)
        names = [
            event["content"].get("name")
            for event in invite["invite_state"]["events"]
            if event["type"] == "m.room.name"
        ]
        self.assertEqual(names, ["Parlour"])
        await self.bob.join(room_id)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")
        await self.bob.sees(room_id, await self.alice.send(room_id))
        await self.alice.sees(room_id, await self.bob.send(room_id))

    @each_version()
    async def test_invite_and_reject(self, version: str) -> None:
        room_id = await self.room(version, preset="private_chat")
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.invited(room_id)
        await self.bob.leave(room_id)
        await self.alice.sees_member(room_id, self.bob.user_id, "leave")
        answer = await self.bob.ok("GET", "/sync", timeout=0)
        self.assertNotIn(room_id, answer.get("rooms", {}).get("invite", {}))

    @each_version()
    async def test_invite_and_withdraw(self, version: str) -> None:
        room_id = await self.room(version, preset="private_chat")
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.invited(room_id)
        await self.alice.kick(room_id, self.bob.user_id)
        await self.bob.synced(
            lambda answer: room_id in answer.get("rooms", {}).get("leave", {}), "withdrawn invite"
        )

    @each_version()
    async def test_leave_and_come_back(self, version: str) -> None:
        room_id = await self.shared_room(version)
        await self.bob.leave(room_id)
        await self.alice.sees_member(room_id, self.bob.user_id, "leave")
        await self.alice.send(room_id, "while bob is away")
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "changed"})
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")
        await self.agree(room_id, self.alice, self.bob)
        self.assertIn("while bob is away", await self.bob.bodies(room_id))
        await self.alice.sees(room_id, await self.bob.send(room_id))

    @each_version()
    async def test_kick(self, version: str) -> None:
        room_id = await self.shared_room(version)
        await self.bob.sync()
        await self.alice.kick(room_id, self.bob.user_id)
        await self.bob.synced(
            lambda answer: room_id in answer.get("rooms", {}).get("leave", {}), "kick"
        )
        with self.assertRaises(Refused):
            await self.bob.send(room_id)
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")

    @each_version()
    async def test_ban(self, version: str) -> None:
        room_id = await self.shared_room(version)
        await self.bob.sync()
        await self.alice.ban(room_id, self.bob.user_id)
        await self.bob.synced(
            lambda answer: room_id in answer.get("rooms", {}).get("leave", {}), "ban"
        )
        with self.assertRaises(Refused) as refused:
            await self.bob.join(room_id, self.home.name)
        self.assertEqual(refused.exception.status, 403)
        await self.alice.unban(room_id, self.bob.user_id)
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")

    @each_version("9", "10", "11", "12")
    async def test_knock(self, version: str) -> None:
        room_id = await self.room(version, name="Gate")
        await self.alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
        await self.bob.knock(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "knock")
        await self.bob.synced(
            lambda answer: room_id in answer.get("rooms", {}).get("knock", {}), "knock"
        )
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.invited(room_id)
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")

    @each_version("9", "10", "11", "12")
    async def test_knock_and_withdraw(self, version: str) -> None:
        room_id = await self.room(version)
        await self.alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
        await self.bob.knock(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "knock")
        await self.bob.leave(room_id)
        if self.away.kind == "Synapse":
            # It forgets the knock, and tells nobody.
            await self.bob.synced(
                lambda answer: room_id not in answer.get("rooms", {}).get("knock", {}), "no knock"
            )
        else:
            await self.alice.sees_member(room_id, self.bob.user_id, "leave")

    @each_version("9", "10", "11", "12")
    async def test_restricted(self, version: str) -> None:
        space = await self.room(version)
        rule = {"type": "m.room_membership", "room_id": space}
        room_id = await self.room(version)
        rules: dict[str, Any] = {"join_rule": "restricted", "allow": [rule]}
        await self.alice.set_state(room_id, "m.room.join_rules", rules)
        with self.assertRaises(Refused):
            await self.bob.join(room_id, self.home.name)
        await self.bob.join(space, self.home.name)
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")
        content = await self.alice.state_of(room_id, "m.room.member", self.bob.user_id)
        self.assertEqual(content["join_authorised_via_users_server"], self.alice.user_id)
        await self.alice.sees(room_id, await self.bob.send(room_id))
        # Another user of bob's server now joins without help, who is not in the space.
        carol = await self.away.register("carol")
        with self.assertRaises(Refused):
            await carol.join(room_id, self.home.name)

    @each_version("10", "11", "12")
    async def test_knock_restricted(self, version: str) -> None:
        space = await self.room(version)
        room_id = await self.room(version)
        allow = [{"type": "m.room_membership", "room_id": space}]
        rules: dict[str, Any] = {"join_rule": "knock_restricted", "allow": allow}
        await self.alice.set_state(room_id, "m.room.join_rules", rules)
        carol = await self.away.register("carol")
        await carol.knock(room_id, self.home.name)
        await self.alice.sees_member(room_id, carol.user_id, "knock")
        await self.bob.join(space, self.home.name)
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")
