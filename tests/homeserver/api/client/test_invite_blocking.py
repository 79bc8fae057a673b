"""Users who take no invites, over the API."""

from __future__ import annotations

from typing import Any

from tests.support.room_case import RoomTestCase, q


class InviteBlockingTest(RoomTestCase):
    async def configure(self, **content: Any) -> None:
        path = f"/user/{q(self.bob.user_id)}/account_data/m.invite_permission_config"
        await self.bob.ok("PUT", path, content)

    async def invited(self) -> list[str]:
        return list((await self.bob.sync()).get("rooms", {}).get("invite", {}))

    async def test_every_way_to_invite_is_refused(self) -> None:
        """Shows MISC-8."""
        await self.start()
        await self.configure(default_action="block")
        target = {"user_id": self.bob.user_id}
        member = f"/rooms/{q(self.room_id)}/state/m.room.member/{q(self.bob.user_id)}"
        before = await self.alice.ok("GET", "/joined_rooms")
        for method, path, body in (
            ("POST", f"/rooms/{q(self.room_id)}/invite", target),
            ("PUT", member, {"membership": "invite"}),
            ("POST", "/createRoom", {"invite": [self.bob.user_id]}),
        ):
            answer = await self.alice.call(method, path, body)
            self.assert_error(answer, 403, "M_INVITE_BLOCKED")
        self.assertEqual(await self.alice.ok("GET", "/joined_rooms"), before)
        self.assertEqual(await self.invited(), [])
        await self.bob.join(self.room_id)

    async def test_anything_else_blocks_nothing(self) -> None:
        """Shows MISC-8."""
        await self.start()
        for content in ({}, {"default_action": "allow"}, {"default_action": ["block"]}):
            await self.configure(**content)
            await self.alice.create_room(invite=[self.bob.user_id])
        self.assertEqual(len(await self.invited()), 3)

    async def test_outsiders_learn_nothing(self) -> None:
        """Shows MISC-8."""
        await self.start(preset="private_chat")
        await self.configure(default_action="block")
        carol = await self.server.register("carol")
        path = f"/rooms/{q(self.room_id)}/invite"
        answer = await carol.call("POST", path, {"user_id": self.bob.user_id})
        self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_invites_of_before_are_hidden_meanwhile(self) -> None:
        """Shows MISC-8."""
        await self.start()
        await self.alice.invite(self.room_id, self.bob.user_id)
        await self.configure(default_action="block")
        self.assertEqual(await self.invited(), [])
        await self.configure()
        self.assertEqual(await self.invited(), [self.room_id])

    async def test_invites_of_ignored_users_are_hidden(self) -> None:
        """Shows MISC-8."""
        await self.start()
        path = f"/user/{q(self.bob.user_id)}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        await self.alice.invite(self.room_id, self.bob.user_id)
        self.assertEqual(await self.invited(), [])
