"""Reading rooms over the API: history, state, members, single events."""

from __future__ import annotations

import itertools
import json
from typing import Any

from homeserver.core.tokens import PaginationToken
from homeserver.rooms import timeline as timeline_module
from storage import events
from storage.events import EventRow
from storage.transaction import Transaction
from tests.support.room_case import TEXT, RoomTestCase, q
from tests.support.server import User


class MessagesTest(RoomTestCase):
    async def all_pages(self, user: User, direction: str, limit: int, **query: Any) -> list[Any]:
        """All pages, each as the server gave it."""
        pages = []
        while True:
            page = await self.get(user, "messages", dir=direction, limit=limit, **query)
            pages.append(page)
            if "end" not in page:
                return pages
            query["from"] = page["end"]

    def ids_of(self, pages: list[Any]) -> list[str]:
        return [event["event_id"] for page in pages for event in page["chunk"]]

    async def test_pages_both_ways(self) -> None:
        """Shows RD-1."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(25)]
        back = await self.all_pages(self.alice, "b", 4)
        self.assertEqual(self.ids_of(back)[:25], sent[::-1])
        types = [event["type"] for page in back for event in page["chunk"]]
        self.assertEqual(types[-1], "m.room.create")
        self.assertEqual([len(page["chunk"]) for page in back[:-1]], [4] * (len(back) - 1))
        forward = await self.all_pages(self.alice, "f", 4)
        self.assertEqual(self.ids_of(forward), self.ids_of(back)[::-1])
        for pages in (back, forward):
            for one, other in itertools.pairwise(pages):
                self.assertEqual(other["start"], one["end"])
            self.assertNotIn("end", pages[-1])

    async def test_the_last_page_has_no_end_even_if_it_is_full(self) -> None:
        """Shows RD-1."""
        await self.start()
        count = len(await self.messages(self.alice))
        for direction in "bf":
            page = await self.get(self.alice, "messages", dir=direction, limit=count)
            self.assertEqual(len(page["chunk"]), count)
            self.assertNotIn("end", page)
            page = await self.get(self.alice, "messages", dir=direction, limit=count - 1)
            self.assertIn("end", page)

    async def test_tokens_of_messages_work_both_ways(self) -> None:
        """Shows RD-1."""
        await self.start()
        for n in range(10):
            await self.alice.send(self.room_id, str(n))
        page = await self.get(self.alice, "messages", dir="b", limit=4)
        there = [event["event_id"] for event in page["chunk"]]
        back = await self.ids(self.alice, dir="f", limit=4, **{"from": page["end"]})
        self.assertEqual(back, there[::-1])
        again = await self.ids(self.alice, dir="b", limit=4, **{"from": page["start"]})
        self.assertEqual(again, there)

    async def test_tokens_of_sync(self) -> None:
        """Shows RD-1."""
        await self.start()
        before = [await self.alice.send(self.room_id, str(n)) for n in range(3)]
        token = await self.now()
        after = [await self.alice.send(self.room_id, str(n)) for n in range(3)]
        found = await self.ids(self.alice, dir="b", limit=3, **{"from": token})
        self.assertEqual(found, before[::-1])
        page = await self.get(self.alice, "messages", dir="f", limit=2, **{"from": token})
        self.assertEqual(page["start"], token)
        self.assertEqual([event["event_id"] for event in page["chunk"]], after[:2])
        rest = await self.ids(self.alice, dir="f", **{"from": page["end"]})
        self.assertEqual(rest, after[2:])
        self.assertEqual(await self.ids(self.alice, dir="f", **{"from": await self.now()}), [])

    async def test_to(self) -> None:
        """Shows RD-1."""
        await self.start()
        for n in range(3):
            await self.alice.send(self.room_id, str(n))
        token = await self.now()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(5)]
        page = await self.get(self.alice, "messages", dir="b", to=token)
        self.assertEqual([event["event_id"] for event in page["chunk"]], sent[::-1])
        self.assertNotIn("end", page)
        page = await self.get(self.alice, "messages", dir="b", limit=2)
        found = await self.ids(self.alice, dir="b", to=token, **{"from": page["end"]})
        self.assertEqual(found, sent[2::-1])
        found = await self.ids(self.alice, dir="f", to=page["end"], **{"from": token})
        self.assertEqual(found, sent[:3])
        later = await self.now()
        await self.alice.send(self.room_id, "later")
        self.assertEqual(await self.ids(self.alice, dir="f", to=later, **{"from": token}), sent)

    async def test_limits(self) -> None:
        """Shows RD-1."""
        await self.start()
        for n in range(12):
            await self.alice.send(self.room_id, str(n))
        self.assertEqual(len(await self.ids(self.alice, dir="b")), 10)
        self.patch(timeline_module, "MAX_LIMIT", 5)
        self.assertEqual(len(await self.ids(self.alice, dir="b", limit=2**40)), 5)
        page = await self.get(self.alice, "messages", dir="b", limit=0)
        self.assertEqual(page["chunk"], [])
        self.assertEqual(page["end"], page["start"])

    async def test_bad_parameters(self) -> None:
        """Shows RD-9."""
        await self.start()
        for query in (
            "dir=b&limit=-1",
            "dir=b&limit=x",
            "dir=b&limit=1.5",
            "dir=b&limit=99999999999999999999",
            "dir=b&limit=",
            "dir=x",
            "dir=b&from=nonsense",
            "dir=b&to=nonsense",
            "dir=b&from=t1-99999999999999999999",
            "dir=b&from=s1",
            "dir=b&filter={",
            "dir=b&filter=[]",
            "dir=b&filter=%7B%22limit%22:-1%7D",
            "dir=b&filter=%7B%22types%22:5%7D",
        ):
            status, answer = await self.alice.call(
                "GET", f"/rooms/{q(self.room_id)}/messages?{query}"
            )
            self.assertEqual(status, 400, (query, answer))
        answer = await self.alice.call("GET", f"/rooms/{q(self.room_id)}/messages")
        self.assert_error(answer, 400, "M_MISSING_PARAM")
        event_id = q(await self.alice.send(self.room_id))
        for path in (f"context/{event_id}?limit=-1", f"context/{event_id}?limit=x", "members?at=x"):
            status, _ = await self.alice.call("GET", f"/rooms/{q(self.room_id)}/{path}")
            self.assertEqual(status, 400, path)

    async def test_filters(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        mine = await self.alice.send(self.room_id, "mine")
        image = await self.alice.send(self.room_id, {"url": "mxc://a/b"}, "image")
        his = await self.bob.send(self.room_id, "his")
        relates = {"rel_type": "m.annotation", "event_id": mine, "key": "+"}
        reaction = await self.bob.send(self.room_id, {"m.relates_to": relates}, "m.reaction")

        async def found(**wanted: Any) -> list[str]:
            return await self.ids(self.alice, dir="f", limit=50, filter=json.dumps(wanted))

        everything = await found()
        self.assertEqual(await found(types=["m.room.message"]), [mine, his])
        self.assertEqual(await found(types=["im*", "m.reaction"]), [image, reaction])
        self.assertEqual((await found(senders=[self.bob.user_id]))[1:], [his, reaction])
        self.assertEqual((await found(not_senders=[self.alice.user_id]))[1:], [his, reaction])
        self.assertEqual(await found(contains_url=True), [image])
        self.assertNotIn(image, await found(contains_url=False))
        self.assertEqual(await found(rel_types=["m.annotation"]), [reaction])
        self.assertNotIn(reaction, await found(not_rel_types=["m.annotation"]))
        self.assertEqual(await found(related_by_rel_types=["m.annotation"]), [mine])
        self.assertEqual(await found(related_by_senders=[self.bob.user_id]), [mine])
        self.assertEqual(await found(related_by_senders=[self.alice.user_id]), [])
        self.assertEqual(await found(not_rooms=[self.room_id]), [])
        self.assertEqual(await found(rooms=[self.room_id]), everything)
        self.assertEqual(await found(types=[]), [])
        self.assertEqual(len(await self.ids(self.alice, dir="f", filter='{"limit": 2}')), 2)

    async def test_what_a_filter_leaves_out_does_not_end_the_history(self) -> None:
        """Shows RD-1."""
        await self.start()
        self.patch(timeline_module, "WINDOW", 5)
        wanted = []
        for n in range(20):
            event_id = await self.alice.send(self.room_id, {"n": n}, "rare" if n % 9 == 0 else "x")
            if n % 9 == 0:
                wanted.append(event_id)
        for direction, expected in (("f", wanted), ("b", wanted[::-1])):
            pages = await self.all_pages(self.alice, direction, 10, filter='{"types": ["rare"]}')
            self.assertEqual(self.ids_of(pages), expected)
            self.assertGreater(len(pages), 3)

    async def test_lazy_loaded_members(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        token = await self.now()
        await self.bob.send(self.room_id)
        query = {"from": token, "filter": '{"lazy_load_members": true}'}
        page = await self.get(self.alice, "messages", dir="f", **query)
        members = [(e["type"], e["state_key"], e["content"]["membership"]) for e in page["state"]]
        self.assertEqual(members, [("m.room.member", self.bob.user_id, "join")])
        page = await self.get(self.alice, "messages", dir="f", **{"from": token})
        self.assertNotIn("state", page)

    async def test_ignored_senders_are_left_out(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        hidden = await self.bob.send(self.room_id)
        shown = await self.alice.send(self.room_id)
        await self.alice.ok(
            "PUT",
            f"/user/{q(self.alice.user_id)}/account_data/m.ignored_user_list",
            {"ignored_users": {self.bob.user_id: {}}},
        )
        found = await self.messages(self.alice)
        ids = [event["event_id"] for event in found]
        self.assertIn(shown, ids)
        self.assertNotIn(hidden, ids)
        # State is shown all the same.
        self.assertIn(self.bob.user_id, [event.get("state_key") for event in found])

    async def test_names_that_nobody_can_have_do_no_harm(self) -> None:
        """U+0000 in lists of users and types: no database could find such a thing."""
        await self.start()
        sent = await self.alice.send(self.room_id)
        path = f"/user/{q(self.alice.user_id)}/account_data/m.ignored_user_list"
        await self.alice.ok("PUT", path, {"ignored_users": {"@a\0b:hearth.test": {}}})
        self.assertIn(sent, await self.ids(self.alice, dir="b"))
        await self.get(self.alice, f"context/{q(sent)}")
        for wanted in ({"types": ["m\0"]}, {"senders": ["@a\0b:hearth.test"]}):
            found = await self.get(self.alice, "messages", dir="b", filter=json.dumps(wanted))
            self.assertEqual(found["chunk"], [])

    async def insert(self, like: str, depth: int, pos: int, name: str) -> None:
        """Put an event into the room's history, as fetching it from elsewhere would."""

        def write(txn: Transaction) -> None:
            row = events.get(txn, like)
            assert row is not None
            fetched = row._replace(
                event_nid=-pos + 10**9,
                event_id=name,
                depth=depth,
                pos=pos,
                txn_device=None,
                txn_scope=None,
                txn_id=None,
            )
            events.insert(txn, [EventRow(*fetched)])

        await self.server.homeserver.db.write(write)

    async def test_what_is_fetched_while_paging_is_not_skipped(self) -> None:
        """Shows RD-8."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(10)]
        start = await self.now()
        page = await self.get(self.alice, "messages", dir="b", limit=3, **{"from": start})
        depth = PaginationToken.parse(page["end"]).depth
        # As deep as the last event that was shown, just below it, and far below.
        await self.insert(sent[0], depth, -1, "$same")
        await self.insert(sent[0], depth - 1, -2, "$below")
        await self.insert(sent[0], 1, -3, "$first")
        pages = [page, *(await self.all_pages(self.alice, "b", 3, **{"from": page["end"]}))]
        ids = self.ids_of(pages)
        self.assertEqual([name for name in ids if name in sent], sent[::-1])
        for name in ("$same", "$below", "$first"):
            self.assertEqual(ids.count(name), 1)
        self.assertEqual(ids[3], "$same")
        # A token of sync finds what was fetched since, too.
        pages = await self.all_pages(self.alice, "b", 3, **{"from": start})
        self.assertEqual(self.ids_of(pages), ids)

    async def test_what_arrives_while_paging_does_not_disturb(self) -> None:
        """Shows RD-8."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(9)]
        found: list[str] = []
        query: dict[str, str] = {}
        while len(found) < 9:
            page = await self.get(self.alice, "messages", dir="b", limit=3, **query)
            found += [event["event_id"] for event in page["chunk"]]
            query = {"from": page["end"]}
            await self.alice.send(self.room_id, "meanwhile")
        self.assertEqual(found, sent[::-1])


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
