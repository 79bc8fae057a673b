"""First syncs from what is kept of rooms in memory, against the general way."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import structlog
from twisted.internet.defer import Deferred

from homeserver.app import build
from homeserver.rooms.room_tasks import RoomTasks
from homeserver.rooms.shown_rooms import ShownRooms
from homeserver.sync.engine import SyncEngine
from storage import erasures
from tests.homeserver.sync.life import Life, forget_age
from tests.homeserver.sync.scene import SyncTestCase, bodies, filtered, joined, state
from tests.support.admin import make_admin
from tests.support.client import Client
from tests.support.network import OfflineReactor
from tests.support.server import TestServer, User

FILTERS = [
    filtered(),
    filtered(state={"lazy_load_members": True}),
    filtered(timeline={"limit": 3}, state={"lazy_load_members": True}),
    filtered(timeline={"limit": 2, "unread_thread_notifications": True}),
    filtered(timeline={"limit": 30}),
]
ROUNDS = 12


def plain(answer: Any) -> Any:
    """An answer without what depends on the time, with events in the order of their IDs where the
    order says nothing."""
    found = json.loads(json.dumps(answer))
    found.pop("presence", None)
    for room in found.get("rooms", {}).get("join", {}).values():
        for name in ("state", "state_after"):
            if name in room:
                room[name]["events"].sort(key=lambda event: event["event_id"])
        # Two forms of tokens name the same place: a position, and a depth with a position.
        token = room["timeline"].get("prev_batch", "")
        room["timeline"]["prev_batch"] = re.sub(r"^t\d+-(\d+)$", r"s\1_0", token)
        for name in ("state", "state_after", "timeline"):
            for event in room.get(name, {}).get("events", []):
                forget_age(event)
    return found


class SameAsGeneralTest(SyncTestCase):
    timeout = 120

    async def both(self, user: User, **query: Any) -> tuple[Any, Any]:
        """The answer by what is kept, and the general one."""
        engine = self.server.homeserver.services[SyncEngine]
        kept, by_kept = engine._kept, await user.sync(**query)
        engine._kept = None
        try:
            return plain(by_kept), plain(await user.sync(**query))
        finally:
            engine._kept = kept

    async def test_whatever_happens(self) -> None:
        carol = await self.server.register("carol")
        life = Life([self.alice, self.bob, carol], 8)
        for number in range(4):
            await life.make_room(**({"name": f"Room {number}"} if number % 2 else {}))
        for visibility in ("joined", "world_readable"):
            content = {"history_visibility": visibility}
            kind = "m.room.history_visibility"
            await life.make_room(initial_state=[{"type": kind, "content": content}])
        for room_id in life.rooms[:4]:
            for user in life.users[1:]:
                await user.join(room_id)
                life.inside[room_id].append(user)
        counted: dict[str, int] = {}

        def count(how: str, rooms: int) -> None:
            counted[how] = counted.get(how, 0) + rooms

        self.server.homeserver.services[ShownRooms].count = count
        for turn in range(ROUNDS):
            for _ in range(10):
                await life.step()
            for user in life.users:
                for after in (False, True):
                    wanted = FILTERS[(turn + after) % len(FILTERS)]
                    query: dict[str, Any] = {"filter": wanted, "use_state_after": after}
                    by_kept, general = await self.both(user, **query)
                    self.assertEqual(by_kept, general)
        self.assertGreater(counted["memory"], 100)
        self.assertGreater(counted["general"], 50)

    async def test_ignored_users_and_own_transactions(self) -> None:
        room_id, other = await self.shared_room(name="Tea"), await self.shared_room()
        for user in (self.alice, self.bob):
            await user.send(room_id, "hello")
            await user.send(other, "hello")
        by_kept, general = await self.both(self.bob)
        self.assertEqual(by_kept, general)
        event = by_kept["rooms"]["join"][room_id]["timeline"]["events"][-1]
        self.assertIn("transaction_id", event["unsigned"])
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        by_kept, general = await self.both(self.bob)
        self.assertEqual(by_kept, general)
        self.assertEqual(bodies(joined(by_kept, room_id)), ["hello"])


class EarlyTest(SyncTestCase):
    """Rooms in which the timeline begins before the reader came."""

    timeout = 60

    async def compared(self, user: User) -> tuple[Any, dict[str, int]]:
        """The answer by what is kept, which is as the general one, and how rooms were shown."""
        counted = {"memory": 0, "general": 0}
        shown = self.server.homeserver.services[ShownRooms]
        engine = self.server.homeserver.services[SyncEngine]

        def count(how: str, rooms: int) -> None:
            counted[how] += rooms

        answer: Any = None
        for wanted in FILTERS:
            for after in (False, True):
                query: dict[str, Any] = {"filter": wanted, "use_state_after": after}
                shown.count, kept = count, engine._kept
                by_kept = await user.sync(**query)
                shown.count, engine._kept = lambda how, rooms: None, None
                general = await user.sync(**query)
                engine._kept = kept
                self.assertEqual(plain(by_kept), plain(general))
                answer = by_kept
        return answer, counted

    async def test_newcomers(self) -> None:
        room_id = await self.alice.create_room(preset="public_chat", name="Tea")
        said = await self.alice.send(room_id, "before")
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "one"})
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "two"})
        await self.bob.join(room_id)
        await self.alice.send(room_id, "after")
        answer, counted = await self.compared(self.bob)
        self.assertEqual(counted, {"memory": 10, "general": 0})
        section = joined(answer, room_id)
        self.assertEqual(bodies(section), ["before", "after"])
        (shown,) = [e for e in section["timeline"]["events"] if e["event_id"] == said]
        self.assertEqual(shown["unsigned"]["membership"], "leave")

    async def test_who_was_invited_and_renamed_themselves(self) -> None:
        room_id = await self.alice.create_room(preset="private_chat")
        await self.alice.send(room_id, "before")
        await self.alice.invite(room_id, self.bob.user_id)
        said = await self.alice.send(room_id, "invited")
        await self.bob.join(room_id)
        content = {"membership": "join", "displayname": "Robert"}
        await self.bob.set_state(room_id, "m.room.member", content, self.bob.user_id)
        answer, counted = await self.compared(self.bob)
        self.assertGreater(counted["memory"], 5)
        section = joined(answer, room_id)
        (shown,) = [e for e in section["timeline"]["events"] if e["event_id"] == said]
        self.assertEqual(shown["unsigned"]["membership"], "invite")

    async def test_who_left_and_came_back(self) -> None:
        room_id = await self.shared_room()
        await self.alice.send(room_id, "both")
        await self.bob.leave(room_id)
        said = await self.alice.send(room_id, "alone")
        await self.bob.join(room_id)
        answer, counted = await self.compared(self.bob)
        self.assertGreater(counted["memory"], 3)
        events = joined(answer, room_id)["timeline"]["events"]
        (shown,) = [event for event in events if event["event_id"] == said]
        self.assertEqual(shown["unsigned"]["membership"], "leave")

    async def test_what_is_hidden_from_newcomers(self) -> None:
        kind = "m.room.history_visibility"
        for visibility in ("joined", "invited"):
            content = {"history_visibility": visibility}
            room_id = await self.alice.create_room(
                preset="public_chat", initial_state=[{"type": kind, "content": content}]
            )
            await self.alice.send(room_id, "secret")
            await self.bob.join(room_id)
            await self.alice.send(room_id, "hello")
            # Today's visibility is not that of the time.
            other = await self.alice.create_room(
                preset="public_chat", initial_state=[{"type": kind, "content": content}]
            )
            await self.alice.send(other, "secret")
            await self.alice.set_state(other, kind, {"history_visibility": "shared"})
            await self.alice.send(other, "open")
            await self.bob.join(other)
            answer, counted = await self.compared(self.bob)
            self.assertEqual(bodies(joined(answer, room_id)), ["hello"])
            self.assertEqual(bodies(joined(answer, other)), ["open"])
            self.assertGreater(counted["general"], 0)

    async def test_who_was_erased(self) -> None:
        carol = await self.server.register("carol")
        room_id = await self.alice.create_room(preset="public_chat")
        await carol.join(room_id)
        await carol.send(room_id, "forget me")
        await self.server.homeserver.db.write(erasures.record, carol.user_id)
        await self.bob.join(room_id)
        answer, counted = await self.compared(self.bob)
        self.assertNotIn("forget me", json.dumps(answer))
        self.assertGreater(counted["general"], 0)


class ChangeTest(SyncTestCase):
    """What is kept is not shown any more when it is out of date."""

    async def test_redactions(self) -> None:
        room_id = await self.shared_room()
        said = await self.alice.send(room_id, "secret")
        topic = await self.alice.set_state(room_id, "m.room.topic", {"topic": "secret"})
        await self.alice.send(room_id, "more")
        await self.bob.sync()
        for number, event_id in enumerate((said, topic)):
            path = f"/rooms/{room_id}/redact/{event_id}/r{number}"
            await self.alice.ok("PUT", path, {})
            for wanted in FILTERS[:2]:
                answer = await self.bob.sync(filter=wanted)
                section = joined(answer, room_id)
                shown = [event["content"] for event in section["timeline"]["events"]]
                self.assertNotIn({"msgtype": "m.text", "body": "secret"}, shown)
                if number:
                    self.assertNotIn("secret", json.dumps(section))

    async def test_other_processes(self) -> None:
        room_id, other = await self.shared_room(name="Before"), await self.shared_room()
        await self.alice.send(other, "hello")
        await self.bob.sync(filter=FILTERS[1])
        second = await self.process()
        alice = User(second, self.alice.user_id, self.alice.token, self.alice.device_id)
        await alice.set_state(room_id, "m.room.name", {"name": "After"})
        said = await alice.send(room_id, "by another process")
        section = joined(await self.bob.sync(filter=FILTERS[1]), room_id)
        self.assertEqual(bodies(section), ["by another process"])
        self.assertIn({"name": "After"}, [e["content"] for e in section["timeline"]["events"]])
        await alice.ok("PUT", f"/rooms/{room_id}/redact/{said}/r", {})
        section = joined(await self.bob.sync(filter=FILTERS[1]), room_id)
        self.assertNotIn("by another process", json.dumps(section))

    async def test_purges(self) -> None:
        room_id = await self.shared_room()
        for number in range(5):
            last = await self.alice.send(room_id, f"m{number}")
        self.assertEqual(len(bodies(joined(await self.bob.sync(), room_id))), 5)
        admin = await make_admin(await self.server.register("root"))
        path = f"/_synapse/admin/v1/purge_history/{quote(room_id)}/{quote(last)}"
        task = await admin.ok("POST", path, {"delete_local_events": True})
        await self.server.homeserver.services[RoomTasks].over(task["purge_id"])
        self.assertEqual(bodies(joined(await self.bob.sync(), room_id)), ["m4"])

    async def test_lazy_members_that_join_and_leave(self) -> None:
        room_id = await self.shared_room()
        await self.alice.send(room_id, "hello")
        wanted = FILTERS[2]
        await self.bob.sync(filter=wanted)
        carol = await self.server.register("carol")
        await carol.join(room_id)
        for number in range(4):
            await carol.send(room_id, str(number))
        section = joined(await self.bob.sync(filter=wanted), room_id)
        self.assertIn(("m.room.member", carol.user_id), state(section))
        self.assertEqual(section["summary"]["m.joined_member_count"], 3)
        await carol.leave(room_id)
        section = joined(await self.bob.sync(filter=wanted), room_id)
        self.assertEqual(section["summary"]["m.joined_member_count"], 2)

    async def process(self) -> TestServer:
        """Another homeserver on the same database."""
        config = self.server.homeserver.config
        homeserver = await build(config, OfflineReactor(), structlog.get_logger())
        self.addCleanup(lambda: Deferred.fromCoroutine(homeserver.stop()))
        return TestServer(homeserver, Client(homeserver.router))
