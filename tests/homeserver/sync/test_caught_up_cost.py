"""What answers from memory cost, and when there are any."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from homeserver.sync import journal as journal_module
from homeserver.sync.journal import Journal
from homeserver.sync.long_poll import Sync
from homeserver.users.presence import PresenceTracker
from storage import recent_news
from tests.homeserver.sync.scene import SyncTestCase, bodies, joined
from tests.homeserver.sync.test_long_poll import pause
from tests.support.server import User

GENERAL = "homeserver.sync.engine.SyncEngine.read"


class CostTest(SyncTestCase):
    """What answers from memory cost, and when there are any."""

    async def prepare(self) -> None:
        await super().prepare()
        self.sync = self.server.homeserver.services[Sync]
        self.reads: list[str] = []
        read = self.server.homeserver.db.read

        def counted(fn: Any, *args: Any, **options: Any) -> Any:
            self.reads.append(f"{fn.__module__}.{fn.__qualname__}")
            return read(fn, *args, **options)

        self.patch(self.server.homeserver.db, "read", counted)

    async def crowd(self, room_id: str, size: int) -> list[tuple[User, str]]:
        """Users in a room, each with a token, who have been told of a message there."""
        users = [await self.server.register() for _ in range(size)]
        for user in users:
            await user.join(room_id)
        tokens = [await self.token(user) for user in users]
        await self.alice.send(room_id, "the first")
        found = []
        for user, since in zip(users, tokens, strict=True):
            found.append((user, (await user.sync(since))["next_batch"]))
        return found

    async def test_messages_of_this_process(self) -> None:
        room_id = await self.alice.create_room(preset="public_chat")
        crowd = await self.crowd(room_id, 5)
        polls = [self.poll(user, since) for user, since in crowd]
        await pause()
        self.reads.clear()
        await self.alice.send(room_id, "for all")
        for poll in polls:
            self.assertEqual(bodies(joined(await poll, room_id)), ["for all"])
        self.assertNotIn(GENERAL, self.reads)
        self.assertNotIn("homeserver.sync.journal._read", self.reads)

    async def test_one_reading_for_all(self) -> None:
        """Of what else there is in the log, before a message and behind it."""
        room_id = await self.alice.create_room(preset="public_chat")
        crowd = await self.crowd(room_id, 5)
        first = await self.alice.send(room_id, "not yet")
        await self.alice.ok("POST", f"/rooms/{quote(room_id)}/receipt/m.read/{quote(first)}", {})
        await self.alice.send(room_id, "for all")
        self.reads.clear()
        for user, since in crowd:
            answer = joined(await user.sync(since), room_id)
            self.assertEqual(bodies(answer), ["not yet", "for all"])
            (receipt,) = answer["ephemeral"]["events"]
            self.assertIn(first, receipt["content"])
        self.assertNotIn(GENERAL, self.reads)
        self.assertEqual(self.reads.count("homeserver.sync.journal._read"), 1, self.reads)

    async def test_a_burst_is_told_at_once(self) -> None:
        """To clients that come back while it lasts."""
        room_id = await self.alice.create_room(preset="public_chat")
        ((user, since),) = await self.crowd(room_id, 1)
        texts = [f"message {number}" for number in range(5)]
        for text in texts:
            await self.alice.send(room_id, text)
        self.reads.clear()
        answer = await user.sync(since)
        self.assertEqual(bodies(joined(answer, room_id)), texts)
        self.assertNotIn(GENERAL, self.reads)
        self.assertEqual(
            joined(answer, room_id)["unread_notifications"],
            {"notification_count": 6, "highlight_count": 0},
        )

    async def test_presence(self) -> None:
        """Is told from memory, in an event that is made once for all, to those who share a room."""
        room_id = await self.alice.create_room(preset="public_chat")
        crowd = await self.crowd(room_id, 4)
        stranger = await self.server.register()
        since = (await stranger.sync())["next_batch"]
        crowd = [(user, (await user.sync(each, timeout=0))["next_batch"]) for user, each in crowd]
        made: list[str] = []
        event = PresenceTracker.event

        def counted(tracker: PresenceTracker, user_id: str, stored: Any) -> Any:
            made.append(user_id)
            return event(tracker, user_id, stored)

        self.patch(PresenceTracker, "event", counted)
        body = {"presence": "unavailable", "status_msg": "out"}
        path = f"/presence/{quote(self.alice.user_id)}/status"
        await self.alice.ok("PUT", path, body)
        self.reads.clear()
        for user, token in crowd:
            (told,) = (await user.sync(token, timeout=0))["presence"]["events"]
            self.assertEqual(told["sender"], self.alice.user_id)
            self.assertEqual(told["content"]["status_msg"], "out")
        self.assertNotIn(GENERAL, self.reads)
        self.assertEqual(self.reads.count("homeserver.sync.journal._read"), 1, self.reads)
        self.assertEqual(made, [self.alice.user_id])
        self.assertNotIn("presence", await stranger.sync(since, timeout=0))

    async def test_the_same_again(self) -> None:
        """A client whose answer was lost comes with the same token again."""
        room_id = await self.alice.create_room(preset="public_chat")
        ((user, since),) = await self.crowd(room_id, 1)
        await self.alice.send(room_id, "lost")
        first = await user.sync(since)
        again = await user.sync(since)
        self.assertEqual(bodies(joined(again, room_id)), ["lost"])
        self.assertEqual(again["next_batch"], first["next_batch"])

    async def test_a_gap_of_the_journal(self) -> None:
        """More happened than is read at once: the database is asked, and then memory again."""
        room_id = await self.alice.create_room(preset="public_chat")
        ((user, since),) = await self.crowd(room_id, 1)
        self.patch(recent_news, "LIMIT", 3)
        self.patch(journal_module, "MAX_OWN", 5)
        for number in range(6):
            await self.alice.send(room_id, str(number))
        self.reads.clear()
        answer = await user.sync(since)
        self.assertEqual(bodies(joined(answer, room_id)), ["0", "1", "2", "3", "4", "5"])
        self.assertIn(GENERAL, self.reads)
        await self.alice.send(room_id, "more")
        self.reads.clear()
        answer = await user.sync(answer["next_batch"])
        self.assertEqual(bodies(joined(answer, room_id)), ["more"])
        self.assertNotIn(GENERAL, self.reads)

    async def test_age(self) -> None:
        """Events are as old as they are when the answer is made."""
        room_id = await self.alice.create_room(preset="public_chat")
        ((user, since),) = await self.crowd(room_id, 1)
        await self.alice.send(room_id, "old")
        journal = self.server.homeserver.services[Journal]
        await journal.refresh()
        await pause(0.5)
        (event,) = joined(await user.sync(since), room_id)["timeline"]["events"]
        self.assertGreaterEqual(event["unsigned"]["age"], 400)
        self.assertLess(event["unsigned"]["age"], 10_000)
