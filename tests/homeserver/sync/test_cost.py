"""What `/sync` asks of the database: a bound on statements, which noise cannot break.

On PostgreSQL every statement is a round trip and is planned anew, so that their number is what an
answer costs. The bounds hold for both databases.
"""

from __future__ import annotations

from typing import Any

from homeserver.sync.engine import Durable, SyncEngine
from homeserver.sync.long_poll import Sync
from homeserver.sync.notifier import Notifier
from homeserver.users.presence import PresenceTracker
from storage.transaction import Transaction
from tests.homeserver.sync.scene import SyncTestCase, bodies, filtered, joined


class StatementsTest(SyncTestCase):
    async def prepare(self) -> None:
        await super().prepare()
        self.statements: list[int] = []
        # Each second it may wake whoever shares a room with somebody who came or went.
        self.server.homeserver.services[PresenceTracker].stop()
        engine = self.server.homeserver.services[SyncEngine]
        read = engine.read

        def counted(txn: Transaction, *args: Any, **options: Any) -> Durable:
            found = read(txn, *args, **options)
            self.statements.append(txn.statements)
            return found

        self.patch(engine, "read", counted)
        # See `test_caught_up_cost` for what is answered without the engine.
        self.server.homeserver.services[Sync].caught_up.is_off = True

    async def sync(self, since: str) -> tuple[Any, int]:
        """Bob's answer, and how many statements it took."""
        self.statements.clear()
        counts = self.server.homeserver.db.queries
        before = counts.direct["newest"] + counts.thread["newest"]
        answer = await self.bob.sync(since)
        self.assertLessEqual(len(self.statements), 1)
        alone = counts.direct["newest"] + counts.thread["newest"] - before
        return answer, sum(self.statements) + alone

    async def test_nothing_new(self) -> None:
        """Whatever the number of rooms."""
        for _ in range(3):
            await self.shared_room()
        since = await self.token(self.bob)
        self.server.homeserver.services[Notifier].wake_user(self.bob.user_id)
        answer, statements = await self.sync(since)
        self.assertNotIn("rooms", answer)
        # The second is for the rooms to look for typing in, if anybody's presence changed.
        self.assertLessEqual(statements, 2)
        self.assertGreater(statements, 0)

    async def test_nothing_new_and_no_hint(self) -> None:
        """The database is not asked: the answer is the one before."""
        await self.shared_room()
        since = await self.token(self.bob)
        answer, statements = await self.sync(since)
        self.assertEqual(statements, 0)
        self.assertEqual(answer["next_batch"], since)
        self.assertEqual(answer["device_one_time_keys_count"], {})

    async def test_waiting_anew(self) -> None:
        """A client that waited in vain, and comes back to wait, costs nothing."""
        room_id = await self.shared_room()
        since = await self.token(self.bob)
        self.statements.clear()
        poll = self.poll(self.bob, since)
        self.assertNoResult(poll)
        self.assertEqual(self.statements, [])
        await self.alice.send(room_id, "hello")
        self.assertEqual(bodies(joined(await poll, room_id)), ["hello"])

    async def test_what_is_told_always(self) -> None:
        """Counts of one-time keys are those of now, not of the answer before."""
        since = await self.token(self.bob)
        key = {"signed_curve25519:AAAA": {"key": "A" * 43, "signatures": {}}}
        await self.bob.ok("POST", "/keys/upload", {"one_time_keys": key})
        answer, _ = await self.sync(since)
        self.assertEqual(answer["device_one_time_keys_count"], {"signed_curve25519": 1})
        device = {self.bob.user_id: {self.bob.device_id: "signed_curve25519"}}
        await self.alice.ok("POST", "/keys/claim", {"one_time_keys": device})
        answer, _ = await self.sync(answer["next_batch"])
        self.assertEqual(answer["device_one_time_keys_count"].get("signed_curve25519", 0), 0)

    async def test_news_for_others(self) -> None:
        """The clock moved, but for a room that the user is not in."""
        await self.shared_room()
        elsewhere = await self.alice.create_room()
        since = await self.token(self.bob)
        await self.alice.send(elsewhere)
        answer, statements = await self.sync(since)
        self.assertNotIn("rooms", answer)
        self.assertLessEqual(statements, 2)

    async def test_one_message(self) -> None:
        """In one of several rooms."""
        rooms = [await self.shared_room() for _ in range(3)]
        since = await self.token(self.bob)
        await self.alice.send(rooms[1], "hello")
        answer, statements = await self.sync(since)
        self.assertEqual(list(answer["rooms"]["join"]), [rooms[1]])
        self.assertEqual(bodies(joined(answer, rooms[1])), ["hello"])
        self.assertLessEqual(statements, 5)

    async def test_one_message_for_many(self) -> None:
        """Whoever comes after the first reads what is their own."""
        room_id = await self.shared_room()
        carol = await self.server.register("carol")
        await carol.join(room_id)
        tokens = [await self.token(user) for user in (self.bob, carol)]
        await self.alice.send(room_id, "hello")
        found = []
        for user, since in zip((self.bob, carol), tokens, strict=True):
            self.statements.clear()
            answer = await user.sync(since)
            self.assertEqual(bodies(joined(answer, room_id)), ["hello"])
            found.append(sum(self.statements))
        self.assertLess(found[1], found[0])
        self.assertLessEqual(found[1], 3)

    async def test_first_sync(self) -> None:
        """A room more costs what is its own: what all rooms need is asked for together."""
        for _ in range(3):
            await self.shared_room(name="A room")
        _, few = await self.first()
        for _ in range(6):
            await self.shared_room(name="A room")
        answer, many = await self.first()
        self.assertEqual(len(answer["rooms"]["join"]), 9)
        self.assertLessEqual(many - few, 6 * 4)

    async def first(self) -> tuple[Any, int]:
        """Alice's first answer, who was in the rooms from their beginning."""
        self.statements.clear()
        answer = await self.alice.sync(filter=filtered(lazy_load_members=True))
        return answer, sum(self.statements)


class ReactorTest(SyncTestCase):
    """What is left for the reactor to encode of an answer that tells of many rooms."""

    timeout = 60

    async def prepare(self) -> None:
        await super().prepare()
        self.left: list[int] = []
        engine = self.server.homeserver.services[SyncEngine]
        read = engine.read

        def counted(txn: Transaction, *args: Any, **options: Any) -> Durable:
            found = read(txn, *args, **options)
            rooms = found.answer.get("rooms", {}).get("join", {}).values()
            lists = [
                section[name]["events"]
                for section in rooms
                for name in ("timeline", "state")
                if name in section
            ]
            self.left.append(sum(len(events) for events in lists if isinstance(events, list)))
            return found

        self.patch(engine, "read", counted)
        self.server.homeserver.services[Sync].caught_up.is_off = True

    async def test_many_rooms(self) -> None:
        """No event: they are encoded where they are read, in a thread."""
        rooms = [await self.shared_room() for _ in range(25)]
        engine = self.server.homeserver.services[SyncEngine]
        since = await self.token(self.bob)
        self.patch(engine, "_kept", None)
        await self.bob.sync()
        for room_id in rooms:
            for number in range(3):
                await self.alice.send(room_id, f"message {number}")
        answer = await self.bob.sync(since)
        self.assertEqual(len(answer["rooms"]["join"]), 25)
        self.assertEqual(bodies(joined(answer, rooms[7])), [f"message {n}" for n in range(3)])
        self.assertEqual(self.left, [0, 0, 0])
