"""Changes of profiles in sync: MSC4429 and MSC4262."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from tests.homeserver.sync.sliding.scene import SlidingTestCase, window
from tests.support.room_case import q
from tests.support.server import User

KEY = "org.matrix.msc4429.users"
EXTENSION = "org.matrix.msc4262.profiles"


def wanted(*fields: str) -> str:
    return json.dumps({"org.matrix.msc4429.profile_fields": {"ids": list(fields)}})


class ProfileTestCase(SlidingTestCase):
    async def put(self, user: User, field: str, value: Any) -> None:
        path = f"/profile/{q(user.user_id)}/{field}"
        await user.ok("PUT", path, {field: value})


class SyncTest(ProfileTestCase):
    """MSC4429."""

    async def test_all_at_first_then_what_changes(self) -> None:
        room_id = await self.shared_room()
        await self.put(self.alice, "m.tz", "Europe/Berlin")
        await self.put(self.alice, "org.example.other", 1)
        stranger = await self.server.register("stranger")
        await self.put(stranger, "m.tz", "Asia/Tokyo")
        asked = wanted("m.tz", "org.example.mood")
        answer = await self.bob.sync(filter=asked)
        mine = {"profile_updates": {"m.tz": "Europe/Berlin"}}
        self.assertEqual(answer[KEY], {self.alice.user_id: mine})
        self.assertNotIn(KEY, await self.bob.sync())
        since = answer["next_batch"]
        self.assertNotIn(KEY, await self.bob.sync(since, filter=asked))
        waiting = Deferred.fromCoroutine(self.bob.sync(since, timeout=20_000, filter=asked))
        await self.put(self.alice, "org.example.mood", {"deep": [None]})
        update = {"profile_updates": {"org.example.mood": {"deep": [None]}}}
        answer = await waiting
        self.assertEqual(answer[KEY], {self.alice.user_id: update})
        # Several changes are one; what was removed is null; others' and other fields are not told.
        await self.alice.ok("DELETE", f"/profile/{q(self.alice.user_id)}/org.example.mood")
        await self.put(self.alice, "m.tz", "UTC")
        await self.put(self.alice, "org.example.other", 2)
        await self.put(self.bob, "m.tz", "America/Lima")
        await self.put(stranger, "m.tz", "UTC")
        answer = await self.bob.sync(answer["next_batch"], filter=asked)
        expected = {
            self.alice.user_id: {"profile_updates": {"org.example.mood": None, "m.tz": "UTC"}},
            self.bob.user_id: {"profile_updates": {"m.tz": "America/Lima"}},
        }
        self.assertEqual(answer[KEY], expected)
        # Who enters is told of, and who leaves.
        since = answer["next_batch"]
        await stranger.join(room_id)
        answer = await self.bob.sync(since, filter=asked)
        self.assertEqual(answer[KEY], {stranger.user_id: {"profile_updates": {"m.tz": "UTC"}}})
        await stranger.leave(room_id)
        answer = await self.bob.sync(answer["next_batch"], filter=asked)
        self.assertEqual(answer[KEY], {stranger.user_id: {"profile_updates": None}})

    async def test_bad_filters(self) -> None:
        for ids in ("m.tz", [1], {"a": 1}, ["x" * 1000], ["x"] * 100_000):
            body = {"org.matrix.msc4429.profile_fields": {"ids": ids}}
            answer = await self.bob.call("POST", f"/user/{q(self.bob.user_id)}/filter", body)
            self.assertIn(answer.status, (400, 413), ids)

    async def test_flags(self) -> None:
        answer = await self.server.client.get("/_matrix/client/versions")
        for flag in ("org.matrix.msc4429", "org.matrix.msc4262"):
            self.assertIs(answer.body["unstable_features"][flag], True)


class SlidingTest(ProfileTestCase):
    """MSC4262."""

    async def ask(self, pos: str | None = None, limit: int = 1, **options: Any) -> Any:
        """(position, users) of an answer."""
        lists = options.pop("lists", {"all": window((0, 0), limit=limit)})
        extensions = {EXTENSION: {"enabled": True, **options}}
        answer = await self.slide(self.bob, pos, lists=lists, extensions=extensions)
        told = answer["extensions"].get(EXTENSION, {"users": {}})
        return answer["pos"], told["users"]

    async def test_profiles_of_rooms_that_are_new_then_changes(self) -> None:
        carol = await self.server.register("carol")
        hidden = await carol.create_room(preset="public_chat")
        await self.bob.join(hidden)
        await self.put(carol, "m.tz", "UTC")
        await self.shared_room()
        await self.put(self.alice, "m.tz", "Asia/Tokyo")
        await self.put(self.alice, "org.example.x", None)
        pos, users = await self.ask()
        # Not Carol, whose room is in no window.
        mine = {"m.tz": "Asia/Tokyo", "org.example.x": None}
        self.assertEqual(users, {self.alice.user_id: {"updated": mine}})
        pos, users = await self.ask(pos)
        self.assertEqual(users, {})
        await self.put(carol, "m.tz", "Europe/Berlin")
        await self.alice.ok("DELETE", f"/profile/{q(self.alice.user_id)}/m.tz")
        pos, users = await self.ask(pos)
        told = {carol.user_id: {"updated": {"m.tz": "Europe/Berlin"}}}
        self.assertEqual(users, {**told, self.alice.user_id: {"removed": ["m.tz"]}})
        # The position again: an answer that was lost.
        pos, users = await self.ask(pos, lists={"all": window((0, 1), limit=1)})
        self.assertEqual(users, told)
        await carol.leave(hidden)
        pos, users = await self.ask(pos)
        self.assertEqual(users, {carol.user_id: None})

    async def test_some_fields_and_more_of_them(self) -> None:
        await self.shared_room()
        for field in ("m.tz", "org.example.x", "org.example.y"):
            await self.put(self.alice, field, "UTC")
        me = self.alice.user_id
        pos, users = await self.ask(fields=["m.tz"])
        self.assertEqual(users, {me: {"updated": {"m.tz": "UTC"}}})
        await self.put(self.alice, "org.example.x", "new")
        pos, users = await self.ask(pos, fields=["m.tz"])
        self.assertEqual(users, {})
        pos, users = await self.ask(pos, fields=["m.tz", "org.example.x"])
        self.assertEqual(users, {me: {"updated": {"m.tz": "UTC", "org.example.x": "new"}}})
        pos, users = await self.ask(pos, fields=["m.tz", "org.example.x"])
        self.assertEqual(users, {})

    async def test_lazy_members(self) -> None:
        """Of whom something is shown."""
        carol = await self.server.register("carol")
        room_id = await self.shared_room()
        await carol.join(room_id)
        for user in (self.alice, carol):
            await self.put(user, "m.tz", "UTC")
        await self.alice.send(room_id)
        lazy = {"all": window((0, 0), limit=1, required_state=[["m.room.member", "$LAZY"]])}
        pos, users = await self.ask(lists=lazy)
        self.assertEqual(list(users), [self.alice.user_id])
        await carol.send(room_id)
        pos, users = await self.ask(pos, lists=lazy)
        self.assertEqual(list(users), [carol.user_id])

    async def test_bad_input(self) -> None:
        wrong: tuple[dict[str, Any], ...] = (
            {"fields": "m.tz"},
            {"fields": [1]},
            {"fields": ["x" * 300]},
            {"fields": ["x"] * 201},
            {"rooms": {}},
            {"lists": ["x"] * 2000},
        )
        for options in wrong:
            extensions = {EXTENSION: {"enabled": True, **options}}
            answer = await self.call(self.bob, extensions=extensions, lists={})
            self.assertEqual(answer.status, 400, options)
