"""Reading rooms over the API: state, members, single events, and who may."""

from __future__ import annotations

import json
from typing import Any

from tests.support.room_case import TEXT, RoomTestCase, q
from tests.support.server import User


class AccessTest(RoomTestCase):
    READS = ("messages?dir=b", "state", "state/m.room.create", "members", "joined_members")

    async def assert_refused(self, user: User, *paths: str) -> None:
        for path in paths or self.READS:
            answer = await user.call("GET", f"/rooms/{q(self.room_id)}/{path}")
            self.assertEqual(answer.status, 403, (path, answer.body))
            self.assertEqual(answer.body["errcode"], "M_FORBIDDEN")

    async def test_outside_the_room(self) -> None:
        """Shows RD-2."""
        await self.start()
        await self.assert_refused(self.bob)
        await self.alice.invite(self.room_id, self.bob.user_id)
        await self.assert_refused(self.bob)
        for room_id in ("!unknown:hearth.test", "!unknown"):
            self.room_id = room_id
            await self.assert_refused(self.alice)

    async def left_room(self) -> tuple[str, str]:
        """Bob was in the room and left; the last message of his time, and one after it."""
        await self.start()
        await self.bob.join(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.name", {"name": "then"})
        then = await self.alice.send(self.room_id, "then")
        await self.bob.leave(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.name", {"name": "now"})
        now = await self.alice.send(self.room_id, "now")
        return then, now

    async def test_after_leaving(self) -> None:
        """Shows RD-3."""
        then, now = await self.left_room()
        carol = await self.server.register("carol")
        await carol.join(self.room_id)
        page = await self.get(self.bob, "messages", dir="b", limit=2)
        self.assertEqual([e["type"] for e in page["chunk"]], ["m.room.member", "m.room.message"])
        self.assertEqual(page["chunk"][1]["event_id"], then)
        for token in (await self.now(), page["start"]):
            found = await self.ids(self.bob, dir="f", limit=100, **{"from": token})
            self.assertEqual(found, [])
        ids = await self.ids(self.bob, dir="f", limit=100)
        self.assertIn(then, ids)
        self.assertNotIn(now, ids)
        self.assertEqual(await self.get(self.bob, "state/m.room.name"), {"name": "then"})
        self.assertEqual(await self.get(self.alice, "state/m.room.name"), {"name": "now"})
        state = {(e["type"], e["state_key"]): e for e in await self.get(self.bob, "state")}
        self.assertEqual(state[("m.room.name", "")]["content"], {"name": "then"})
        own = state[("m.room.member", self.bob.user_id)]
        self.assertEqual(own["content"]["membership"], "leave")
        self.assertNotIn(("m.room.member", carol.user_id), state)
        members = (await self.get(self.bob, "members"))["chunk"]
        self.assertEqual(
            {(e["state_key"], e["content"]["membership"]) for e in members},
            {(self.alice.user_id, "join"), (self.bob.user_id, "leave")},
        )
        self.assertEqual((await self.event(self.bob, then))["event_id"], then)
        for path in (f"event/{q(now)}", f"context/{q(now)}"):
            answer = await self.bob.call("GET", f"/rooms/{q(self.room_id)}/{path}")
            self.assert_error(answer, 404, "M_NOT_FOUND")
        context = await self.get(self.bob, f"context/{q(then)}", limit=20)
        after = [event["event_id"] for event in context["events_after"]]
        self.assertEqual(len(after), 1)
        await self.assert_refused(self.bob, "joined_members")

    async def test_the_reason_of_a_redaction_after_leaving(self) -> None:
        """That an event was redacted is shown, but nothing that was written later."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.alice.send(self.room_id, "hello")
        await self.bob.leave(self.room_id)
        await self.put_ok(self.alice, f"redact/{q(event_id)}/1", {"reason": "a secret"})
        found = await self.event(self.alice, event_id)
        self.assertEqual(found["unsigned"]["redacted_because"]["content"]["reason"], "a secret")
        found = await self.event(self.bob, event_id)
        self.assertEqual(found["content"], {})
        self.assertNotIn("reason", found["unsigned"]["redacted_because"]["content"])

    async def test_after_being_banned(self) -> None:
        """Shows RD-3."""
        await self.start()
        await self.bob.join(self.room_id)
        then = await self.alice.send(self.room_id)
        await self.alice.ok("POST", f"/rooms/{q(self.room_id)}/ban", {"user_id": self.bob.user_id})
        now = await self.alice.send(self.room_id)
        ids = await self.ids(self.bob, dir="b")
        self.assertIn(then, ids)
        self.assertNotIn(now, ids)
        # Lifting the ban, and another invitation, do not show more.
        await self.alice.ok(
            "POST", f"/rooms/{q(self.room_id)}/unban", {"user_id": self.bob.user_id}
        )
        await self.alice.invite(self.room_id, self.bob.user_id)
        self.assertEqual(await self.ids(self.bob, dir="b"), ids)
        # Coming back does.
        await self.bob.join(self.room_id)
        self.assertIn(now, await self.ids(self.bob, dir="b"))

    async def test_a_world_readable_room_after_leaving(self) -> None:
        """Shows RD-3."""
        await self.start(
            initial_state=[
                {
                    "type": "m.room.history_visibility",
                    "content": {"history_visibility": "world_readable"},
                }
            ]
        )
        await self.bob.join(self.room_id)
        await self.bob.leave(self.room_id)
        now = await self.alice.send(self.room_id)
        self.assertNotIn(now, await self.ids(self.bob, dir="b"))
        # Who forgets it is a stranger, and strangers may read it.
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/forget", {})
        self.assertIn(now, await self.ids(self.bob, dir="b"))

    async def test_after_forgetting(self) -> None:
        """Shows RD-3."""
        then, _ = await self.left_room()
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/forget", {})
        await self.assert_refused(self.bob)
        answer = await self.bob.call("GET", f"/rooms/{q(self.room_id)}/event/{q(then)}")
        self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_events_that_one_may_not_see_are_not_found(self) -> None:
        """Shows RD-6."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        elsewhere = await self.bob.create_room()
        for user, room_id, name in (
            (self.bob, self.room_id, event_id),
            (self.bob, elsewhere, event_id),
            (self.bob, "!unknown", event_id),
            (self.alice, self.room_id, "$unknown"),
        ):
            for what in ("event", "context"):
                path = f"/rooms/{q(room_id)}/{what}/{q(name)}"
                self.assert_error(await user.call("GET", path), 404, "M_NOT_FOUND")
            path = f"/_matrix/client/v1/rooms/{q(room_id)}/relations/{q(name)}"
            self.assert_error(await user.call("GET", path), 404, "M_NOT_FOUND")


class StateTest(RoomTestCase):
    async def test_one_piece(self) -> None:
        """Shows RD-5."""
        await self.start(name="a room")
        self.assertEqual(await self.get(self.alice, "state/m.room.name"), {"name": "a room"})
        for path in ("state/m.room.name", "state/m.room.name/"):
            content = await self.get(self.alice, path, format="content")
            self.assertEqual(content, {"name": "a room"})
            event = await self.get(self.alice, path, format="event")
            self.assertEqual(event["content"], {"name": "a room"})
            self.assertEqual(event["type"], "m.room.name")
            self.assertEqual(event["state_key"], "")
            self.assertEqual(event["sender"], self.alice.user_id)
            self.assertEqual(event["room_id"], self.room_id)
            self.assertLessEqual({"event_id", "origin_server_ts", "unsigned"}, event.keys())
        answer = await self.alice.call("GET", f"/rooms/{q(self.room_id)}/state/m.room.topic")
        self.assert_error(answer, 404, "M_NOT_FOUND")
        answer = await self.alice.call(
            "GET", f"/rooms/{q(self.room_id)}/state/m.room.name?format=x"
        )
        self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_all_of_it(self) -> None:
        await self.start(name="a room")
        await self.bob.join(self.room_id)
        state = await self.get(self.bob, "state")
        found = {(event["type"], event["state_key"]): event for event in state}
        self.assertEqual(len(found), len(state))
        self.assertEqual(found[("m.room.name", "")]["content"], {"name": "a room"})
        self.assertIn(("m.room.member", self.bob.user_id), found)
        self.assertNotIn(("m.room.message", ""), found)


class MembersTest(RoomTestCase):
    async def members(self, user: User, **query: str) -> set[tuple[str, str]]:
        chunk = (await self.get(user, "members", **query))["chunk"]
        return {(e["state_key"].split(":")[0], e["content"]["membership"]) for e in chunk}

    async def test_memberships_are_joined_by_or(self) -> None:
        """Shows RD-4."""
        await self.start()
        carol = await self.server.register("carol")
        await self.bob.join(self.room_id)
        await self.alice.invite(self.room_id, carol.user_id)
        await self.bob.leave(self.room_id)
        alice, bob, invited = ("@alice", "join"), ("@bob", "leave"), ("@carol", "invite")
        for query, expected in (
            ({}, {alice, bob, invited}),
            ({"membership": "join"}, {alice}),
            ({"not_membership": "leave"}, {alice, invited}),
            ({"membership": "leave", "not_membership": "join"}, {bob, invited}),
            ({"membership": "join", "not_membership": "join"}, {alice, bob, invited}),
            ({"membership": "ban"}, set()),
        ):
            self.assertEqual(await self.members(self.alice, **query), expected)
        answer = await self.alice.call("GET", f"/rooms/{q(self.room_id)}/members?membership=x")
        self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_at_a_point(self) -> None:
        """Shows RD-4."""
        await self.start()
        before = await self.now()
        page = await self.get(self.alice, "messages", dir="b", limit=1)
        await self.bob.join(self.room_id)
        joined = await self.now()
        await self.bob.leave(self.room_id)
        for token in (before, page["start"]):
            self.assertEqual(await self.members(self.alice, at=token), {("@alice", "join")})
        self.assertEqual(
            await self.members(self.alice, at=joined), {("@alice", "join"), ("@bob", "join")}
        )
        self.assertEqual(
            await self.members(self.alice, at=joined, membership="join", not_membership="join"),
            {("@alice", "join"), ("@bob", "join")},
        )
        # For Bob, nothing comes after his leave.
        self.assertEqual(
            await self.members(self.bob, at=await self.now()),
            {("@alice", "join"), ("@bob", "leave")},
        )
        self.assertEqual(await self.members(self.alice, at="s0_0"), set())

    async def test_not_at_a_point_that_is_hidden(self) -> None:
        """Shows RD-4, HV-5."""
        await self.start(
            initial_state=[
                {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
            ]
        )
        await self.alice.send(self.room_id)
        before = await self.now()
        await self.bob.join(self.room_id)
        answer = await self.bob.call("GET", f"/rooms/{q(self.room_id)}/members?at={before}")
        self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_joined_members(self) -> None:
        await self.start()
        path = f"/profile/{q(self.bob.user_id)}/displayname"
        await self.bob.ok("PUT", path, {"displayname": "Bob"})
        await self.bob.join(self.room_id)
        carol = await self.server.register("carol")
        await self.alice.invite(self.room_id, carol.user_id)
        self.assertEqual(
            await self.get(self.alice, "joined_members"),
            {"joined": {self.alice.user_id: {}, self.bob.user_id: {"display_name": "Bob"}}},
        )


class ContextTest(RoomTestCase):
    async def test_the_limit_counts_both_sides(self) -> None:
        """Shows RD-7."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(21)]
        middle = sent[10]
        for limit, before, after in ((10, 5, 5), (3, 1, 2), (1, 0, 1), (0, 0, 0)):
            found = await self.get(self.alice, f"context/{q(middle)}", limit=limit)
            self.assertEqual(found["event"]["event_id"], middle)
            ids = [event["event_id"] for event in found["events_before"]]
            self.assertEqual(ids, sent[10 - before : 10][::-1])
            ids = [event["event_id"] for event in found["events_after"]]
            self.assertEqual(ids, sent[11 : 11 + after])
        found = await self.get(self.alice, f"context/{q(middle)}")
        self.assertEqual(len(found["events_before"] + found["events_after"]), 10)

    async def test_the_tokens_page_on(self) -> None:
        """Shows RD-7."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(21)]
        for limit in (0, 1, 4):
            found = await self.get(self.alice, f"context/{q(sent[10])}", limit=limit)
            before, after = limit // 2, limit - limit // 2
            ids = await self.ids(self.alice, dir="b", limit=3, **{"from": found["start"]})
            self.assertEqual(ids, sent[10 - before - 3 : 10 - before][::-1])
            ids = await self.ids(self.alice, dir="f", limit=3, **{"from": found["end"]})
            self.assertEqual(ids, sent[11 + after : 11 + after + 3])
        # At the very end there is a token for what comes later.
        found = await self.get(self.alice, f"context/{q(sent[-1])}")
        later = await self.alice.send(self.room_id)
        ids = await self.ids(self.alice, dir="f", **{"from": found["end"]})
        self.assertEqual(ids, [later])

    async def test_the_state_is_that_at_the_last_event(self) -> None:
        """Shows RD-7."""
        await self.start()
        first = await self.alice.send(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "one"})
        await self.alice.send(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "two"})

        async def topic(limit: int) -> Any:
            found = await self.get(self.alice, f"context/{q(first)}", limit=limit)
            topics = [e["content"] for e in found["state"] if e["type"] == "m.room.topic"]
            return topics[0]["topic"] if topics else None

        self.assertEqual(
            [await topic(0), await topic(1), await topic(3), await topic(20)],
            [None, "one", "one", "two"],
        )

    async def test_filters(self) -> None:
        """Shows RD-7."""
        await self.start()
        await self.bob.join(self.room_id)
        his = await self.bob.send(self.room_id, "his")
        middle = await self.alice.send(self.room_id, TEXT)
        wanted = json.dumps({"senders": [self.bob.user_id]})
        found = await self.get(self.alice, f"context/{q(middle)}", filter=wanted)
        # The event itself is not filtered.
        self.assertEqual(found["event"]["event_id"], middle)
        before = [event["event_id"] for event in found["events_before"]]
        self.assertEqual(before[0], his)
        senders = {event["sender"] for event in found["events_before"] + found["state"]}
        self.assertEqual(senders, {self.bob.user_id})
        lazy = await self.get(
            self.alice, f"context/{q(middle)}", limit=0, filter='{"lazy_load_members": true}'
        )
        members = [e["state_key"] for e in lazy["state"] if e["type"] == "m.room.member"]
        self.assertEqual(members, [self.alice.user_id])
        self.assertIn("m.room.create", [event["type"] for event in lazy["state"]])

    async def test_the_end_of_an_invitation_opens_no_state(self) -> None:
        """Whoever was invited, or knocked, sees how that ended, and nothing of the room by it."""
        await self.start(preset="private_chat", name="Secret", invite=[])
        await self.alice.set_state(self.room_id, "m.room.join_rules", {"join_rule": "knock"})
        knock = f"/knock/{q(self.room_id)}"
        for visibility in ("shared", "invited", "joined"):
            content = {"history_visibility": visibility}
            await self.alice.set_state(self.room_id, "m.room.history_visibility", content)
            for invited in (True, False):
                if invited:
                    await self.alice.invite(self.room_id, self.bob.user_id)
                else:
                    await self.bob.ok("POST", knock, {})
                since = (await self.bob.sync())["next_batch"]
                await self.bob.leave(self.room_id)
                section = (await self.bob.sync(since))["rooms"]["leave"][self.room_id]
                end = section["timeline"]["events"][-1]
                self.assertEqual(end["content"]["membership"], "leave")
                found = await self.get(self.bob, f"context/{q(end['event_id'])}")
                types = {event["type"] for event in found["state"]}
                self.assertNotIn("m.room.name", types)
                self.assertNotIn("m.room.power_levels", types)
                keys = {e["state_key"] for e in found["state"] if e["type"] == "m.room.member"}
                self.assertNotIn(self.alice.user_id, keys)
