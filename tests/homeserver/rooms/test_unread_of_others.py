"""Unread counts of rooms whose events other servers send."""

from __future__ import annotations

from typing import Any

from homeserver.core.event import Event
from tests.homeserver.api.client.test_push_rules import put_rule
from tests.support.events import test_key
from tests.support.history import BOB, CAROL, HistoryCase
from tests.support.server import SERVER_NAME, User

KEYWORD = {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "tea"}


class UnreadTest(HistoryCase):
    async def counts(self, user: User) -> Any:
        """(notifications, highlights)."""
        answer = await user.sync()
        counts = answer["rooms"]["join"][self.room_id]["unread_notifications"]
        return counts["notification_count"], counts["highlight_count"]

    async def receive(self, *events: Event) -> None:
        judged = await self.receiver.add(self.room_id, events)
        self.assertTrue(all(item.accepted for item in judged.values()), judged)

    async def test_own_rules_of_who_just_joined(self) -> None:
        """They count from the first message on, in a room of other servers that a user enters,
        and that another one joins by an event which another server brings."""
        await self.start()
        erin = await self.server.register("erin")
        for user in (self.alice, erin):
            await put_rule(user, "content", "tea", KEYWORD)
        await self.receive(self.room.message(BOB, "hello"))
        self.assertEqual(await self.counts(self.alice), (1, 0))
        await self.receive(self.room.message(BOB, "tea?"))
        self.assertEqual(await self.counts(self.alice), (2, 1))
        join = self.member(erin.user_id, test_key(SERVER_NAME), SERVER_NAME)
        await self.receive(join)
        await self.receive(self.room.message(BOB, "more tea"))
        self.assertEqual(await self.counts(erin), (1, 1))
        self.assertEqual(await self.counts(self.alice), (3, 2))
        # The state changes, and who had rules is gone.
        await self.receive(self.member(CAROL, test_key("c.example"), "c.example", "leave"))
        await self.receive(self.room.message(BOB, "tea again"))
        self.assertEqual(await self.counts(erin), (2, 2))
