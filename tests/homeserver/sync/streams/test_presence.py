"""Presence in `/sync` while many clients sync at the same time."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.tokens import SyncToken
from homeserver.sync.streams import presence as stream
from homeserver.users.presence import PresenceTracker
from tests.homeserver.sync.scene import SyncTestCase


class CrowdTest(SyncTestCase):
    async def prepare(self) -> None:
        await super().prepare()
        self.tracker = self.server.homeserver.services[PresenceTracker]

    def ask(self, since: int, count: int) -> Deferred[list[object]]:
        """Many syncs at once."""
        changes = (
            stream.changes(self.tracker, self.bob.user_id, None, since, since) for _ in range(count)
        )
        return gatherResults([Deferred.fromCoroutine(each) for each in changes])

    async def test_nobody_changed(self) -> None:
        """Nobody waits for a turn, not even while none is free."""
        for _ in range(self.tracker.few.limit):
            await self.tracker.few.acquire()
        found = self.successResultOf(self.ask(2**60, 1000))
        self.assertEqual(found, [[]] * 1000)

    async def test_everybody_has_a_turn(self) -> None:
        """However many wait for theirs."""
        await self.shared_room()
        since = SyncToken.parse(await self.token(self.bob)).ephemeral
        await self.alice.ok(
            "PUT", f"/presence/{self.alice.user_id}/status", {"presence": "unavailable"}
        )
        for _ in range(self.tracker.few.limit):
            await self.tracker.few.acquire()
        asked = self.ask(since, 1000)
        for _ in range(self.tracker.few.limit):
            self.tracker.few.release()
        found = await asked
        self.assertEqual(len(found), 1000)
        self.assertEqual(self.tracker.few.tokens, self.tracker.few.limit)
