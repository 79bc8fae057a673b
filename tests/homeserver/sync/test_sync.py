"""`/sync` from outside: rooms, timelines, state."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.server import make_server


class FirstSyncTest(TestCase):
    timeout = 30

    async def test_initial_and_incremental(self) -> None:
        """Shows SYN-1, SYN-2, SND-11."""
        server = await make_server(self)
        alice, bob = await server.register("alice"), await server.register("bob")
        room_id = await alice.create_room(preset="private_chat", name="Tea")
        await alice.invite(room_id, bob.user_id)
        first = await bob.sync()
        self.assertIn(room_id, first["rooms"]["invite"])
        await bob.join(room_id)
        second = await bob.sync(first["next_batch"])
        joined = second["rooms"]["join"][room_id]
        types = [e["type"] for e in joined["state"]["events"] + joined["timeline"]["events"]]
        self.assertIn("m.room.create", types)
        waiting = Deferred.fromCoroutine(bob.sync(second["next_batch"], timeout=20_000))
        await alice.send(room_id, "hello")
        third = await waiting
        timeline = third["rooms"]["join"][room_id]["timeline"]
        self.assertEqual([e["content"]["body"] for e in timeline["events"]], ["hello"])
        self.assertFalse(timeline["limited"])
        empty = await bob.sync(third["next_batch"])
        self.assertNotIn("rooms", empty)
