"""Room summaries."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from tests.support.server import TestServer, User, make_server

STABLE = "/_matrix/client/v1/room_summary/{}"
OLD = (
    "/_matrix/client/unstable/im.nheko.summary/summary/{}",
    "/_matrix/client/unstable/im.nheko.summary/rooms/{}/summary",
)


class SummaryTest(TestCase):
    server: TestServer
    alice: User
    bob: User

    async def set_up(self) -> None:
        self.server = await make_server(self)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def summary(self, user: User | None, room: str, path: str = STABLE) -> Any:
        """The summary, or None for 404 M_NOT_FOUND."""
        client = user.client if user is not None else self.server.client
        status, body = await client.get(path.format(quote(room, safe="")))
        if status == 404:
            self.assertEqual(body["errcode"], "M_NOT_FOUND")
            return None
        self.assertEqual(status, 200, body)
        return body

    async def test_everything_that_a_summary_holds(self) -> None:
        """Shows ROOM-21."""
        await self.set_up()
        room_id = await self.alice.create_room(
            room_version="11",
            preset="public_chat",
            room_alias_name="tea",
            name="Tea",
            topic="Leaves",
            creation_content={"type": "m.space"},
            initial_state=[
                {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
                {"type": "m.room.avatar", "content": {"url": "mxc://hearth.test/a"}},
            ],
        )
        common = {
            "room_id": room_id,
            "num_joined_members": 1,
            "world_readable": False,
            "guest_can_join": False,
            "join_rule": "public",
            "name": "Tea",
            "topic": "Leaves",
            "canonical_alias": "#tea:hearth.test",
            "avatar_url": "mxc://hearth.test/a",
            "room_type": "m.space",
        }
        new = {"room_version": "11", "encryption": "m.megolm.v1.aes-sha2"}
        old = {f"im.nheko.summary.{key}": value for key, value in new.items()}
        for room in (room_id, "#tea:hearth.test"):
            self.assertEqual(await self.summary(None, room), {**common, **new})
            found = await self.summary(self.bob, room)
            self.assertEqual(found, {**common, **new, "membership": "leave"})
            found = await self.summary(self.alice, room)
            self.assertEqual(found["membership"], "join")
            for path in OLD:
                self.assertEqual(await self.summary(None, room, path), {**common, **old})

    async def test_rooms_that_nobody_may_know_of_are_not_found(self) -> None:
        """Shows ROOM-21."""
        await self.set_up()
        room_id = await self.alice.create_room(preset="private_chat")
        self.assertIsNone(await self.summary(None, room_id))
        self.assertIsNone(await self.summary(self.bob, room_id))
        self.assertIsNotNone(await self.summary(self.alice, room_id))
        await self.alice.invite(room_id, self.bob.user_id)
        found = await self.summary(self.bob, room_id)
        self.assertEqual((found["membership"], found["join_rule"]), ("invite", "invite"))
        await self.bob.leave(room_id)
        self.assertIsNone(await self.summary(self.bob, room_id))
        await self.alice.set_state(
            room_id, "m.room.history_visibility", {"history_visibility": "world_readable"}
        )
        self.assertTrue((await self.summary(None, room_id))["world_readable"])
        self.assertIsNone(await self.summary(self.bob, "!nowhere:hearth.test"))
        self.assertIsNone(await self.summary(self.bob, "#nowhere:hearth.test"))

    async def test_restricted_rooms_show_themselves_to_members_of_allowed_rooms(self) -> None:
        """Shows ROOM-21."""
        await self.set_up()
        space = await self.alice.create_room(preset="public_chat")
        rules = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": space}],
        }
        room_id = await self.alice.create_room(
            room_version="10",
            initial_state=[{"type": "m.room.join_rules", "content": rules}],
        )
        self.assertIsNone(await self.summary(None, room_id))
        self.assertIsNone(await self.summary(self.bob, room_id))
        await self.bob.join(space)
        found = await self.summary(self.bob, room_id)
        self.assertEqual(found["allowed_room_ids"], [space])
        self.assertEqual(found["join_rule"], "restricted")

    async def test_bad_requests(self) -> None:
        await self.set_up()
        for room in ("tea", "@bob:hearth.test", "!", "#tea"):
            status, body = await self.bob.client.get(STABLE.format(quote(room, safe="")))
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"), room)
        room_id = await self.alice.create_room(preset="public_chat")
        via = {"via": ["hearth.test", "elsewhere.test"]}
        self.assertEqual((await self.bob.client.get(STABLE.format(room_id), query=via)).status, 200)
