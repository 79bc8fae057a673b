"""What was answered is in the next /sync."""

from __future__ import annotations

from tests.support.room_case import RoomTestCase


class LocalEchoTest(RoomTestCase):
    async def test_the_next_sync_has_what_was_answered(self) -> None:
        """Shows SND-11."""
        await self.start()
        token = (await self.alice.sync())["next_batch"]
        for n in range(20):
            event_id = await self.put_ok(self.alice, f"send/m.room.message/t{n}")
            answer = await self.alice.sync(token)
            events = answer["rooms"]["join"][self.room_id]["timeline"]["events"]
            self.assertEqual([event["event_id"] for event in events], [event_id])
            self.assertEqual(events[0]["unsigned"]["transaction_id"], f"t{n}")
            token = answer["next_batch"]
