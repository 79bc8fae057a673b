"""How many messages are unread (MSC2654)."""

from __future__ import annotations

from typing import Any

from tests.support.room_case import RoomTestCase, q
from tests.support.server import make_server

KEY = "org.matrix.msc2654.unread_count"


class UnreadMessagesTest(RoomTestCase):
    async def count(self) -> Any:
        room = (await self.bob.sync())["rooms"]["join"][self.room_id]
        return room.get(KEY)

    async def test_what_counts(self) -> None:
        self.server = await make_server(self, experimental={"unread_messages": True})
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.join(self.room_id)
        self.assertEqual(await self.count(), 0)
        first = await self.alice.send(self.room_id)
        edit = {"rel_type": "m.replace", "event_id": first}
        tricky = 'he said "body":"" and "msgtype":"m.notice"'
        expected = 1
        for kind, content, counts in (
            ("m.room.message", {"msgtype": "m.notice", "body": "notice"}, False),
            ("m.room.message", {"msgtype": "m.text", "body": ""}, False),
            ("m.room.message", {"msgtype": "m.text", "body": tricky}, True),
            ("m.room.message", {"msgtype": "m.text", "body": "* x", "m.relates_to": edit}, False),
            ("m.reaction", {}, False),
            ("m.room.encrypted", {"ciphertext": "x"}, True),
            ("org.example.poll", {"body": "Tea?"}, True),
        ):
            await self.alice.send(self.room_id, content, kind)
            expected += counts
            self.assertEqual(await self.count(), expected, content)
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "x"})
        await self.alice.set_state(self.room_id, "m.room.join_rules", {"join_rule": "public"})
        await self.bob.send(self.room_id)
        self.assertEqual(await self.count(), expected + 1)
        await self.put_ok(self.alice, f"redact/{q(first)}/r", {})
        self.assertEqual(await self.count(), expected)
        # Muted rooms too.
        rule = f"/pushrules/global/room/{q(self.room_id)}"
        await self.bob.ok("PUT", rule, {"actions": []})
        last = await self.alice.send(self.room_id)
        self.assertEqual(await self.count(), expected + 1)
        since = (await self.bob.sync())["next_batch"]
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/receipt/m.read/{q(last)}", {})
        room = (await self.bob.sync(since))["rooms"]["join"][self.room_id]
        self.assertEqual(room[KEY], 0)
        path = f"/user/{q(self.bob.user_id)}/account_data/m.ignored_user_list"
        await self.alice.send(self.room_id)
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        self.assertEqual(await self.count(), 0)

    async def test_not_unless_configured(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        await self.alice.send(self.room_id)
        self.assertIsNone(await self.count())
