"""Filters, at the endpoints and in `/sync`."""

from __future__ import annotations

import json

from homeserver.core.errors import MatrixError
from homeserver.sync.filters import Filters
from tests.homeserver.sync.scene import (
    SyncTestCase,
    bodies,
    filtered,
    joined,
    members,
    state,
    whole_state,
)

LAZY = {"lazy_load_members": True}


class StoredFilterTest(SyncTestCase):
    async def test_a_filter_is_its_users_own(self) -> None:
        """Shows FIL-5."""
        mine = f"/user/{self.alice.user_id}/filter"
        source = {"room": {"timeline": {"limit": 3}}, "org.unknown": {"kept": True}}
        filter_id = (await self.alice.ok("POST", mine, source))["filter_id"]
        self.assertEqual(await self.alice.ok("GET", f"{mine}/{filter_id}"), source)
        again = (await self.alice.ok("POST", mine, source))["filter_id"]
        self.assertEqual(again, filter_id)
        for method, path, wanted in (
            ("GET", f"{mine}/999", 404),
            ("GET", f"{mine}/x", 400),
        ):
            self.assertEqual((await self.alice.call(method, path)).status, wanted)
        self.assertEqual((await self.bob.call("GET", f"{mine}/{filter_id}")).status, 403)
        self.assertEqual((await self.bob.call("POST", mine, {})).status, 403)

    async def test_alike_filters_are_kept_once(self) -> None:
        """Clients of one kind all store the same one, and each that waits holds it."""
        filters = self.server.homeserver.services[Filters]
        source = {"room": {"timeline": {"limit": 3}}}
        found = []
        for user in (self.alice, self.bob):
            filter_id = await filters.add(user.user_id, source)
            found.append(await filters.parse(user.user_id, filter_id))
            other_id = await filters.add(user.user_id, {"room": {"timeline": {"limit": 4}}})
            other = await filters.parse(user.user_id, other_id)
            self.assertEqual(other.room.timeline.limit, 4)
        self.assertIs(found[0], found[1])
        self.assertEqual(found[0].room.timeline.limit, 3)
        # Those who stored none have none.
        carol = await self.server.register()
        with self.assertRaises(MatrixError):
            await filters.parse(carol.user_id, filter_id)

    async def test_malformed_filters(self) -> None:
        """Shows FIL-5, FIL-6."""
        mine = f"/user/{self.alice.user_id}/filter"
        sources: tuple[dict[str, object], ...] = (
            {"room": []},
            {"room": {"state": {"lazy_load_members": "true"}}},
            {"room": {"state": {"lazy_load_members": 1}}},
            {"room": {"include_leave": "yes"}},
            {"room": {"timeline": {"limit": "ten"}}},
            {"room": {"timeline": {"types": "m.room.message"}}},
            {"event_format": "xml"},
            {"event_fields": [1]},
        )
        for source in sources:
            self.assertEqual((await self.alice.call("POST", mine, source)).status, 400, source)


class TimelineFilterTest(SyncTestCase):
    async def test_types_senders_and_urls(self) -> None:
        """Shows FIL-1."""
        room_id = await self.shared_room()
        await self.alice.send(room_id, "by alice")
        await self.bob.send(room_id, "by bob")
        await self.bob.send(room_id, {"body": "picture", "url": "mxc://x/y"})
        await self.bob.send(room_id, {"body": "other"}, "org.test")
        for part, wanted in (
            ({"types": ["m.room.message"], "senders": [self.alice.user_id]}, ["by alice"]),
            ({"types": ["m.room.mess*"]}, ["by alice", "by bob", "picture"]),
            ({"types": ["m.*"], "not_types": ["m.room.m*"]}, []),
            ({"types": ["*"], "not_senders": [self.bob.user_id], "limit": 1}, ["by alice"]),
            ({"contains_url": True}, ["picture"]),
        ):
            answer = await self.bob.sync(filter=filtered(timeline=part))
            self.assertEqual(bodies(joined(answer, room_id)), wanted, part)

    async def test_rooms(self) -> None:
        """Shows FIL-1, FIL-2."""
        one, two = await self.shared_room(), await self.shared_room()
        answer = await self.bob.sync(filter=filtered(rooms=[one]))
        self.assertEqual(answer["rooms"]["join"].keys(), {one})
        answer = await self.bob.sync(filter=filtered(not_rooms=[one]))
        self.assertEqual(answer["rooms"]["join"].keys(), {two})
        # The section's own list cannot bring back what the room list left out.
        answer = await self.bob.sync(filter=filtered(rooms=[one], timeline={"rooms": [two]}))
        self.assertEqual(joined(answer, one)["timeline"]["events"], [])

    async def test_a_filtered_timeline_fills_up(self) -> None:
        """Shows FIL-3."""
        room_id = await self.shared_room()
        for number in range(3):
            await self.alice.send(room_id, str(number))
        for _ in range(250):
            await self.alice.send(room_id, {}, "org.noise")
        wanted = filtered(timeline={"types": ["m.room.message"], "limit": 2})
        section = joined(await self.bob.sync(filter=wanted), room_id)
        self.assertEqual(bodies(section), ["1", "2"])
        self.assertTrue(section["timeline"]["limited"])

    async def test_state_hidden_by_the_timeline_filter_is_in_state(self) -> None:
        """Shows FIL-4."""
        room_id = await self.shared_room(name="Tea")
        since = await self.token(self.bob)
        await self.alice.send(room_id, "one")
        await self.alice.set_state(room_id, "m.room.name", {"name": "Coffee"})
        await self.alice.send(room_id, "two")
        wanted = filtered(timeline={"types": ["m.room.message"]})
        section = joined(await self.bob.sync(since, filter=wanted), room_id)
        self.assertEqual(bodies(section), ["one", "two"])
        self.assertEqual(state(section), {("m.room.name", ""): {"name": "Coffee"}})

    async def test_event_fields_and_format(self) -> None:
        """Shows FIL-7, EVT-17."""
        room_id = await self.shared_room()
        await self.alice.send(room_id, {"body": "x", "a.b": 1, "msgtype": "m.text"})
        fields = json.dumps({"event_fields": ["content.body", "content.a\\.b", "type"]})
        event = joined(await self.bob.sync(filter=fields), room_id)["timeline"]["events"][-1]
        self.assertEqual(event, {"type": "m.room.message", "content": {"body": "x", "a.b": 1}})
        federation = json.dumps({"event_format": "federation"})
        event = joined(await self.bob.sync(filter=federation), room_id)["timeline"]["events"][-1]
        self.assertIn("auth_events", event)
        self.assertIn("signatures", event)

    async def test_other_sections(self) -> None:
        """Shows FIL-1."""
        room_id = await self.shared_room()
        me = self.bob.user_id
        await self.bob.ok("PUT", f"/user/{me}/account_data/org.a", {"a": 1})
        await self.bob.ok("PUT", f"/user/{me}/rooms/{room_id}/account_data/org.b", {"b": 1})
        wanted = json.dumps(
            {
                "account_data": {"types": ["org.a"]},
                "presence": {"not_types": ["*"]},
                "room": {"account_data": {"not_types": ["org.b"]}, "ephemeral": {"types": []}},
            }
        )
        answer = await self.bob.sync(filter=wanted)
        self.assertEqual([e["type"] for e in answer["account_data"]["events"]], ["org.a"])
        self.assertNotIn("presence", answer)
        self.assertNotIn("account_data", joined(answer, room_id))


class LazyLoadTest(SyncTestCase):
    async def _crowd(self) -> str:
        room_id = await self.shared_room(name="Tea")
        for name in ("carol", "dave"):
            user = await self.server.register(name)
            await user.join(room_id)
        return room_id

    async def test_members_of_senders_only(self) -> None:
        """Shows FIL-8."""
        room_id = await self._crowd()
        await self.alice.send(room_id, "hello")
        wanted = filtered(state=LAZY, timeline={"limit": 1})
        first = await self.bob.sync(filter=wanted)
        self.assertEqual(members(joined(first, room_id)), {self.alice.user_id, self.bob.user_id})
        await self.alice.send(room_id, "again")
        second = await self.bob.sync(first["next_batch"], filter=wanted)
        self.assertEqual(members(joined(second, room_id)), set())
        # An answer that was lost is no answer: the same token gives the members again.
        lost = await self.bob.sync(first["next_batch"], filter=wanted)
        self.assertEqual(bodies(joined(lost, room_id)), ["again"])
        redundant = filtered(
            state={**LAZY, "include_redundant_members": True}, timeline={"limit": 1}
        )
        third = await self.bob.sync(first["next_batch"], filter=redundant)
        self.assertEqual(members(joined(third, room_id)), {self.alice.user_id})

    async def test_new_senders_come_with_their_member(self) -> None:
        """Shows FIL-8."""
        room_id = await self._crowd()
        await self.alice.send(room_id, "hello")
        wanted = filtered(state=LAZY, timeline={"limit": 1})
        since = await self.token(self.bob, filter=wanted)
        carol = await self.server.register("erin")
        await carol.join(room_id)
        since = (await self.bob.sync(since, filter=wanted))["next_batch"]
        other = await self.server.register("frank")
        del other
        dave_room = await self.bob.sync(since, filter=wanted)
        await carol.send(room_id, "hi")
        section = joined(await self.bob.sync(dave_room["next_batch"], filter=wanted), room_id)
        self.assertLessEqual(members(section), {carol.user_id})
        self.assertEqual(bodies(section), ["hi"])

    async def test_lost_answers_do_not_hide_members(self) -> None:
        """Shows FIL-8."""
        room_id = await self.shared_room(name="Tea")
        wanted = filtered(state=LAZY, timeline={"limit": 1})
        await self.bob.send(room_id, "only bob")
        since = await self.token(self.bob, filter=wanted)
        await self.alice.send(room_id, "one")
        for _ in range(2):
            section = joined(await self.bob.sync(since, filter=wanted), room_id)
            self.assertEqual(members(section), {self.alice.user_id})

    async def test_memberships_of_a_gap(self) -> None:
        """Shows FIL-9."""
        room_id = await self.shared_room(name="Tea")
        wanted = filtered(state=LAZY, timeline={"limit": 1})
        since = await self.token(self.bob, filter=wanted)
        carol = await self.server.register("carol")
        await carol.join(room_id)
        await carol.leave(room_id)
        for _ in range(3):
            await self.alice.send(room_id, "x")
        section = joined(await self.bob.sync(since, filter=wanted), room_id)
        self.assertTrue(section["timeline"]["limited"])
        self.assertIn(carol.user_id, members(section))

    async def test_in_messages_and_context(self) -> None:
        """Shows FIL-10."""
        room_id = await self._crowd()
        event_id = await self.alice.send(room_id, "hello")
        wanted = json.dumps(LAZY)
        page = await self.bob.ok(
            "GET",
            f"/rooms/{room_id}/messages",
            query={"dir": "b", "limit": 1, "filter": wanted},
        )
        self.assertEqual([e["state_key"] for e in page["state"]], [self.alice.user_id])
        context = await self.bob.ok(
            "GET", f"/rooms/{room_id}/context/{event_id}", query={"limit": 0, "filter": wanted}
        )
        found = {e["state_key"] for e in context["state"] if e["type"] == "m.room.member"}
        self.assertEqual(found, {self.alice.user_id})

    async def test_heroes_and_oneself(self) -> None:
        """Shows FIL-8, SYN-16."""
        room_id = await self.alice.create_room(preset="private_chat", invite=[self.bob.user_id])
        wanted = filtered(state=LAZY, timeline={"limit": 1})
        section = joined(await self.alice.sync(filter=wanted), room_id)
        self.assertEqual(section["summary"]["m.heroes"], [self.bob.user_id])
        self.assertIn(("m.room.member", self.bob.user_id), whole_state(section))
        self.assertIn(("m.room.member", self.alice.user_id), whole_state(section))
