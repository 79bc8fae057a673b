"""How the presence of a server's users is kept."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.core.ids import UserID
from homeserver.core.presence import IDLE_AFTER, OFFLINE_AFTER
from homeserver.users import presence as module
from homeserver.users.presence import PresenceTracker
from homeserver.web.request import Requester
from storage.bus import MemoryBus
from storage.ephemeral import MemoryEphemeral

BOB = UserID.parse("@bob:hearth.test")
START = 1_700_000_000


class Rooms:
    """In place of the database: every user is in one room of their own."""

    def __init__(self) -> None:
        self.reads: list[Any] = []

    async def read(self, fn: Any, *args: Any) -> Any:
        self.reads.append(args)
        return {1: True}


class Hints:
    """In place of the feed."""

    def __init__(self) -> None:
        self.published: list[str] = []

    def publish(self, *channels: str) -> None:
        self.published += channels


class PresenceTrackerTest(TestCase):
    async def _tracker(self) -> PresenceTracker:
        db: Any = self.rooms
        feed: Any = self.hints
        tracker = PresenceTracker(db, self.store, feed, self.bus, self.clock, "hearth.test")
        await tracker.start()
        self.addCleanup(tracker.stop)
        return tracker

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.store = MemoryEphemeral(self.clock)
        self.bus = MemoryBus(self.clock)
        self.rooms, self.hints = Rooms(), Hints()

    async def _state(self, tracker: PresenceTracker) -> str:
        content = await tracker.get(Requester(BOB), BOB)
        state: str = content["presence"]
        return state

    async def _stored(self) -> str:
        value = (await self.store.presence([BOB]))[BOB].value
        return value

    def _pass(self, seconds: float) -> None:
        self.clock.pump([1.0] * int(seconds))

    async def test_online_while_syncing_and_offline_after(self) -> None:
        """Shows RCP-8."""
        tracker = await self._tracker()
        ended = await tracker.user_syncing(BOB)
        self.assertEqual(await self._state(tracker), "online")
        self._pass(100)
        self.assertEqual(await self._state(tracker), "online")
        ended()
        self._pass(OFFLINE_AFTER / 1000 - 10)
        self.assertEqual(await self._state(tracker), "online")
        self._pass(20)
        self.assertEqual(await self._state(tracker), "offline")
        self.assertIn('"offline"', await self._stored())

    async def test_idle_while_syncing_without_doing_anything(self) -> None:
        """Shows RCP-8."""
        tracker = await self._tracker()
        for _ in range(int(IDLE_AFTER / 30_000) + 1):
            ended = await tracker.user_syncing(BOB)
            self._pass(30)
            ended()
        self.assertEqual(await self._state(tracker), "unavailable")
        self.assertIn('"unavailable"', await self._stored())
        tracker.active(BOB)
        self.assertEqual(await self._state(tracker), "online")

    async def test_a_sync_that_never_ends(self) -> None:
        tracker = await self._tracker()
        await tracker.user_syncing(BOB)
        self._pass(module.MAX_SYNC / 1000 + OFFLINE_AFTER / 1000 + 10)
        self.assertEqual(await self._state(tracker), "offline")

    async def test_one_idle_device_does_not_hide_another(self) -> None:
        """Shows SYN-25."""
        tracker = await self._tracker()
        await tracker.user_syncing(BOB, "online", "PHONE")
        await tracker.user_syncing(BOB, "unavailable", "LAPTOP")
        self.assertEqual(await self._state(tracker), "online")
        await tracker.user_syncing(BOB, "unavailable", "PHONE")
        self.assertEqual(await self._state(tracker), "unavailable")

    async def test_being_active_again_and_again_is_told_once(self) -> None:
        """Shows RCP-8."""
        tracker = await self._tracker()
        await tracker.user_syncing(BOB)
        position = await self.store.position()
        for _ in range(50):
            self._pass(1)
            tracker.active(BOB)
            ended = await tracker.user_syncing(BOB)
            ended()
        self.assertEqual(await self.store.position(), position)
        self.assertEqual(tracker.changed_since(position), frozenset())
        self.assertEqual(len(self.rooms.reads), 1)

    async def test_only_here(self) -> None:
        """A server may keep presence to itself: what others say of their users is not believed."""
        db: Any = self.rooms
        feed: Any = self.hints
        tracker = PresenceTracker(
            db, self.store, feed, self.bus, self.clock, "hearth.test", federated=False
        )
        self.assertTrue(tracker.enabled)
        self.assertFalse(tracker.is_federated)
        told = module.RemotePresence("@far:other.test", "online", None, 0, True)
        await tracker.set_remote("other.test", [told])
        self.assertEqual(self.rooms.reads, [])
        self.assertEqual(await self.store.presence(["@far:other.test"]), {})

    async def test_rooms_are_woken_together(self) -> None:
        tracker = await self._tracker()
        users = [UserID.parse(f"@user{n}:hearth.test") for n in range(module.MAX_WAKERS + 5)]
        for user_id in users:
            await tracker.user_syncing(user_id)
        self.assertEqual(self.hints.published, [])
        self._pass(1)
        self.assertEqual(self.hints.published, ["room:1"])
        self.assertEqual([len(args[0]) for args in self.rooms.reads], [module.MAX_WAKERS])
        self._pass(3)
        self.assertEqual([len(args[0]) for args in self.rooms.reads], [module.MAX_WAKERS, 5])

    async def test_processes_tell_each_other(self) -> None:
        here, there = await self._tracker(), await self._tracker()
        since = await self.store.position()
        await here.user_syncing(BOB)
        self.clock.advance(0)
        self.assertEqual(there.changed_since(since), {BOB})
        self.assertEqual(there.changed_since(await self.store.position()), frozenset())
        self.assertIsNone(there.changed_since(since - 1))
        # What one process takes for a disconnection, the other knows better.
        ended = await there.user_syncing(BOB)
        ended()
        for _ in range(20):
            self._pass(10)
            (await there.user_syncing(BOB))()
        self.assertEqual(await self._state(here), "online")

    async def test_only_so_many_changes_are_remembered(self) -> None:
        self.patch(module, "MAX_REMEMBERED", 3)
        tracker = await self._tracker()
        since = await self.store.position()
        positions = []
        for number in range(5):
            await tracker.user_syncing(f"@user{number}:hearth.test")
            positions.append(await self.store.position())
        self.assertIsNone(tracker.changed_since(since))
        remembered = tracker.changed_since(positions[1])
        self.assertEqual(remembered, {f"@user{n}:hearth.test" for n in (2, 3, 4)})
