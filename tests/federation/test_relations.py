"""Relations to events that only another server has at first."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.federation import eventually, make_federation
from tests.support.room_case import q

TEXT = {"msgtype": "m.text", "body": "hello"}


class RelationsTest(TestCase):
    timeout = 60

    async def test_children_are_linked_when_their_parent_arrives(self) -> None:
        """Shows REL-8, REL-11."""
        servers = await make_federation(self, 2)
        alice = await servers[0].register("alice")
        bob = await servers[1].register("bob")
        room_id = await alice.create_room(preset="public_chat")
        root = await alice.send(room_id, "root")
        via = servers[0].homeserver.config.server_name
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": via})
        relates = {"rel_type": "m.thread", "event_id": root}
        child = await alice.send(room_id, {**TEXT, "m.relates_to": relates})
        own = await bob.send(room_id, {**TEXT, "body": "x", "m.relates_to": relates})
        edit = {"rel_type": "m.replace", "event_id": root}
        content = {**TEXT, "body": "new"}
        edited = await alice.send(
            room_id, {**content, "m.new_content": content, "m.relates_to": edit}
        )
        path = f"/rooms/{q(room_id)}"

        async def arrived() -> bool:
            status, _ = await bob.call("GET", f"{path}/event/{q(edited)}")
            return status == 200

        await eventually(arrived)
        await bob.ok("GET", f"{path}/messages", query={"dir": "b", "limit": 50})
        shown = await bob.ok("GET", f"{path}/event/{q(root)}")
        found: dict[str, Any] = shown["unsigned"]["m.relations"]
        self.assertEqual(found["m.replace"]["event_id"], edited)
        self.assertEqual(found["m.thread"]["count"], 2)
        self.assertTrue(found["m.thread"]["current_user_participated"])
        self.assertIn(found["m.thread"]["latest_event"]["event_id"], (child, own))
        listed = await bob.ok("GET", f"/_matrix/client/v1/rooms/{q(room_id)}/threads")
        self.assertEqual([event["event_id"] for event in listed["chunk"]], [root])
        related = await bob.ok(
            "GET", f"/_matrix/client/v1/rooms/{q(room_id)}/relations/{q(root)}/m.thread"
        )
        self.assertEqual({event["event_id"] for event in related["chunk"]}, {child, own})
