"""Searching over the API."""

from __future__ import annotations

from typing import Any

from tests.support.client import Answer
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User


class SearchCase(RoomTestCase):
    async def ask(self, user: User, term: str, token: str | None = None, **criteria: Any) -> Answer:
        body = {"search_categories": {"room_events": {"search_term": term, **criteria}}}
        query = {} if token is None else {"next_batch": token}
        return await user.call("POST", "/search", body, query=query)

    async def search(self, user: User, term: str, token: str | None = None, **criteria: Any) -> Any:
        status, body = await self.ask(user, term, token, **criteria)
        self.assertEqual(status, 200, body)
        return body["search_categories"]["room_events"]

    async def bodies(self, user: User, term: str, **criteria: Any) -> list[str]:
        found = await self.search(user, term, **criteria)
        return [each["result"]["content"].get("body", "") for each in found["results"]]

    async def say(self, *texts: str, user: User | None = None) -> list[str]:
        sender = user or self.alice
        return [await sender.send(self.room_id, text) for text in texts]


class FindingTest(SearchCase):
    async def test_a_message_is_found_by_its_words(self) -> None:
        """Shows MISC-3."""
        await self.start()
        event_id, _ = await self.say("The quick brown fox", "a lazy dog")
        found = await self.search(self.alice, "FOX quick")
        self.assertEqual([each["result"]["event_id"] for each in found["results"]], [event_id])
        self.assertEqual(found["results"][0]["result"]["room_id"], self.room_id)
        self.assertGreater(found["results"][0]["rank"], 0)
        self.assertEqual(found["count"], 1)
        self.assertEqual(found["highlights"], ["fox", "quick"])
        self.assertNotIn("next_batch", found)

    async def test_scripts_without_spaces(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("今天天气很好", "明日は東京へ行きます", "오늘은 날씨가 좋네요", "สวัสดีครับ")
        for term, body in {
            "天气": "今天天气很好",
            "好": "今天天气很好",
            "東京": "明日は東京へ行きます",
            "날씨": "오늘은 날씨가 좋네요",
            "สวัสดี": "สวัสดีครับ",
        }.items():
            self.assertEqual(await self.bodies(self.alice, term), [body], term)
        self.assertEqual(await self.bodies(self.alice, "气天"), [])

    async def test_names_and_topics(self) -> None:
        """Shows MISC-3."""
        await self.start(name="Kitchen table", topic="Recipes of the kitchen")
        await self.say("in the kitchen")
        found = await self.search(self.alice, "kitchen")
        types = {each["result"]["type"] for each in found["results"]}
        self.assertEqual(types, {"m.room.name", "m.room.topic", "m.room.message"})
        for key, kind in (("name", "m.room.name"), ("topic", "m.room.topic")):
            found = await self.search(self.alice, "kitchen", keys=[f"content.{key}"])
            self.assertEqual([each["result"]["type"] for each in found["results"]], [kind])
        found = await self.search(self.alice, "kitchen", keys=["content.body"])
        self.assertEqual(len(found["results"]), 1)
        self.assertEqual((await self.search(self.alice, "kitchen", keys=[]))["count"], 0)

    async def test_what_looks_like_an_expression_is_text(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("plain words NEAR here", "c++ (a OR b)")
        for term in (
            '"', "*", "fox*", 'x" OR "y', "words:here", "scope : r1", "^plain", "NEAR(a b)", "a:*",
            "' | 'a", "!plain", "plain & !words", "(.*)+$", "plain\\", "-plain", "\u00a4b",
            "plain\x01", "\ud7a4", "}{][", "%s", "?", "AND", "NOT plain",
        ):  # fmt: skip
            status, body = await self.ask(self.alice, term)
            self.assertEqual(status, 200, (term, body))
        self.assertEqual(await self.bodies(self.alice, "plain OR nothing"), [])
        self.assertEqual(await self.bodies(self.alice, "near"), ["plain words NEAR here"])
        self.assertEqual(await self.bodies(self.alice, "plain -words"), ["plain words NEAR here"])
        self.assertEqual(await self.bodies(self.alice, "words:here"), ["plain words NEAR here"])
        self.assertEqual((await self.search(self.alice, "b OR a"))["count"], 1)

    async def test_large_requests(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("plain words")
        rooms = [f"!{number}:hearth.test" for number in range(900)]
        for term, criteria in (
            ("漢字" * 10_000, {}),
            ("plain " * 10_000, {}),
            ("a" * 60_000, {}),
            (" ".join(f"w{number}" for number in range(9000)), {}),
            ("plain", {"filter": {"rooms": [*rooms, self.room_id]}}),
            ("plain", {"filter": {"not_senders": [f"@{room[1:]}" for room in rooms]}}),
            ("plain", {"filter": {"limit": 2**40}}),
            ("plain", {"event_context": {"before_limit": 2**40, "after_limit": 2**40}}),
            ("plain", {"groupings": {"group_by": [{"key": "sender"}] * 2000}}),
        ):
            status, body = await self.ask(self.alice, term, **criteria)
            self.assertEqual(status, 200, (term[:20], body))
            self.assertLess(len(str(body)), 20_000)
            found = body["search_categories"]["room_events"]["results"]
            self.assertEqual(len(found), "plain" in term, term[:20])

    async def test_bad_requests(self) -> None:
        """Shows MISC-3."""
        await self.start()
        for criteria in (
            {"keys": ["content.msgtype"]},
            {"order_by": "best"},
            {"groupings": {"group_by": [{"key": "type"}]}},
            {"event_context": {"before_limit": -1}},
            {"filter": {"limit": "many"}},
        ):
            self.assertEqual((await self.ask(self.alice, "x", **criteria)).status, 400, criteria)
        for token in ("x", "AAAA", "W10", "bnVsbA", "[" * 500, "WzEsMiwzLDQsNV0", "é"):
            answer = await self.ask(self.alice, "x", token)
            self.assert_error(answer, 400, "M_INVALID_PARAM")
        status, body = await self.alice.call("POST", "/search", {"search_categories": {}})
        self.assertEqual((status, body), (200, {"search_categories": {}}))
        status, body = await self.alice.call("POST", "/search", {})
        self.assertEqual(status, 400)

    async def test_redacted_text_is_gone_at_once(self) -> None:
        """Shows MISC-3."""
        await self.start()
        first, _ = await self.say("secret one", "secret two")
        self.assertEqual((await self.search(self.alice, "secret"))["count"], 2)
        await self.put_ok(self.alice, f"redact/{q(first)}/r1", {})
        left = await self.server.homeserver.db.read(
            lambda txn: txn.value("SELECT COUNT(*) FROM message_words")
        )
        self.assertEqual(left, 1)
        self.assertEqual(await self.bodies(self.alice, "secret"), ["secret two"])
        # Redacted before it was made findable.
        (third,) = await self.say("secret three")
        await self.put_ok(self.alice, f"redact/{q(third)}/r2", {})
        self.assertEqual(await self.bodies(self.alice, "secret"), ["secret two"])


class VisibilityTest(SearchCase):
    async def test_only_rooms_that_one_was_in(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("treasure map")
        self.assertEqual((await self.search(self.bob, "treasure"))["count"], 0)
        await self.bob.join(self.room_id)
        self.assertEqual((await self.search(self.bob, "treasure"))["count"], 1)

    async def test_nothing_from_after_leaving_and_nothing_that_was_hidden(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.alice.set_state(
            self.room_id, "m.room.history_visibility", {"history_visibility": "joined"}
        )
        await self.say("treasure before")
        await self.bob.join(self.room_id)
        await self.say("treasure during")
        await self.bob.leave(self.room_id)
        await self.say("treasure after")
        self.assertEqual(await self.bodies(self.bob, "treasure"), ["treasure during"])
        self.assertEqual((await self.search(self.bob, "treasure"))["count"], 1)
        self.assertEqual((await self.search(self.alice, "treasure"))["count"], 3)
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/forget", {})
        self.assertEqual((await self.search(self.bob, "treasure"))["count"], 0)

    async def test_ignored_users_are_not_found(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        await self.say("treasure", user=self.bob)
        path = f"/user/{q(self.alice.user_id)}/account_data/m.ignored_user_list"
        await self.alice.ok("PUT", path, {"ignored_users": {self.bob.user_id: {}}})
        self.assertEqual((await self.search(self.alice, "treasure"))["count"], 0)
        self.assertEqual((await self.search(self.bob, "treasure"))["count"], 1)


class OrderTest(SearchCase):
    async def test_rank_and_recent(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("apple apple apple", "one apple among so many other words that hide it")
        best = await self.search(self.alice, "apple")
        self.assertEqual(best["results"][0]["result"]["content"]["body"], "apple apple apple")
        ranks = [each["rank"] for each in best["results"]]
        self.assertGreater(ranks[0], ranks[1])
        recent = await self.bodies(self.alice, "apple", order_by="recent")
        self.assertEqual(recent[1], "apple apple apple")

    async def test_pages(self) -> None:
        """Shows MISC-3."""
        await self.start()
        texts = [f"pear {'pear ' * (i % 3)}{i}" for i in range(7)]
        await self.say(*texts)
        for order in ("rank", "recent"):
            seen: list[str] = []
            token, pages = None, 0
            while True:
                found = await self.search(
                    self.alice, "pear", token, order_by=order, filter={"limit": 3}
                )
                seen += [each["result"]["content"]["body"] for each in found["results"]]
                pages += 1
                self.assertEqual(found["count"], 7)
                token = found.get("next_batch")
                if token is None:
                    break
                # What is written meanwhile does not move what is behind the token.
                await self.say("nothing of interest")
            self.assertEqual(pages, 3)
            self.assertEqual(sorted(seen), sorted(texts))
            if order == "recent":
                self.assertEqual(seen, texts[::-1])
        answer = await self.ask(self.alice, "pear", token="x", order_by="recent")
        self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_groups(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.bob.join(self.room_id)
        own = await self.say("plum 1", "plum 2", "plum 3")
        theirs = await self.say("plum 4", user=self.bob)
        other = await self.alice.create_room()
        elsewhere = await self.alice.send(other, "plum 5")
        groupings = {"group_by": [{"key": "room_id"}, {"key": "sender"}]}
        found = await self.search(self.alice, "plum", groupings=groupings, order_by="recent")
        groups = found["groups"]
        self.assertEqual(groups["room_id"][other]["results"], [elsewhere])
        self.assertEqual(groups["room_id"][other]["order"], 1)
        self.assertEqual(groups["room_id"][self.room_id]["results"], [*theirs, *own[::-1]])
        self.assertEqual(groups["sender"][self.bob.user_id]["results"], theirs)
        self.assertNotIn("next_batch", groups["room_id"][other])

    async def test_paging_within_a_group(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.bob.join(self.room_id)
        for i in range(3):
            await self.say(f"plum a{i}")
            await self.say(f"plum b{i}", user=self.bob)
        criteria: dict[str, Any] = {
            "order_by": "recent",
            "groupings": {"group_by": [{"key": "sender"}]},
            "filter": {"limit": 2},
        }
        found = await self.search(self.alice, "plum", **criteria)
        token = found["groups"]["sender"][self.alice.user_id]["next_batch"]
        found = await self.search(self.alice, "plum", token, **criteria)
        texts = [each["result"]["content"]["body"] for each in found["results"]]
        self.assertEqual(texts, ["plum a1", "plum a0"])
        self.assertNotIn("next_batch", found)


class FilterTest(SearchCase):
    async def test_filters(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.bob.join(self.room_id)
        other = await self.alice.create_room()
        await self.say("fig one")
        await self.say("fig two", user=self.bob)
        await self.alice.send(other, "fig three")
        for wanted, bodies in (
            ({"senders": [self.bob.user_id]}, {"fig two"}),
            ({"not_senders": [self.bob.user_id]}, {"fig one", "fig three"}),
            ({"rooms": [other]}, {"fig three"}),
            ({"not_rooms": [other]}, {"fig one", "fig two"}),
            ({"rooms": []}, set()),
            ({"types": ["m.room.topic"]}, set()),
            ({"types": ["m.room.*"]}, {"fig one", "fig two", "fig three"}),
            ({"contains_url": True}, set()),
        ):
            self.assertEqual(set(await self.bodies(self.alice, "fig", filter=wanted)), bodies)

    async def test_replaced_rooms_are_searched_too(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("lemon old")
        answer = await self.alice.ok(
            "POST", f"/rooms/{q(self.room_id)}/upgrade", {"new_version": "11"}
        )
        new = answer["replacement_room"]
        await self.alice.send(new, "lemon new")
        found = await self.bodies(self.alice, "lemon", filter={"rooms": [new]})
        self.assertEqual(set(found), {"lemon old", "lemon new"})
        found = await self.bodies(self.alice, "lemon", filter={"rooms": [self.room_id]})
        self.assertEqual(found, ["lemon old"])


class ContextTest(SearchCase):
    async def test_what_happened_around_with_profiles(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.bob.join(self.room_id)
        path = f"/profile/{q(self.bob.user_id)}/displayname"
        await self.bob.ok("PUT", path, {"displayname": "Old Bob"})
        await self.say("zero", "one")
        await self.say("the melon", user=self.bob)
        await self.say("three", "four")
        await self.bob.ok("PUT", path, {"displayname": "New Bob"})
        found = await self.search(
            self.alice,
            "melon",
            event_context={"before_limit": 2, "after_limit": 1, "include_profile": True},
        )
        context = found["results"][0]["context"]
        before = [each["content"]["body"] for each in context["events_before"]]
        after = [each["content"]["body"] for each in context["events_after"]]
        self.assertEqual((before, after), (["one", "zero"], ["three"]))
        self.assertEqual(context["profile_info"][self.bob.user_id], {"displayname": "Old Bob"})
        self.assertIn(self.alice.user_id, context["profile_info"])
        older = await self.get(self.alice, "messages", dir="b", **{"from": context["start"]})
        newer = await self.get(self.alice, "messages", dir="f", **{"from": context["end"]})
        self.assertNotIn("zero", [e["content"].get("body") for e in older["chunk"]])
        self.assertEqual(newer["chunk"][0]["content"]["body"], "four")

    async def test_no_context_unless_wanted(self) -> None:
        await self.start()
        await self.say("melon")
        found = await self.search(self.alice, "melon")
        self.assertNotIn("context", found["results"][0])
        found = await self.search(
            self.alice, "melon", event_context={"before_limit": 0, "after_limit": 0}
        )
        self.assertEqual(found["results"][0]["context"]["events_before"], [])
        self.assertNotIn("profile_info", found["results"][0]["context"])

    async def test_state(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("melon")
        found = await self.search(self.alice, "melon", include_state=True)
        types = {event["type"] for event in found["state"][self.room_id]}
        self.assertIn("m.room.create", types)


class FollowingTest(SearchCase):
    async def test_a_restarted_server_goes_on_where_it_stopped(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.say("cherry one")
        await self.search(self.alice, "cherry")
        await self.say("cherry two")
        await self.server.restart()
        self.alice.server = self.server
        self.assertEqual((await self.search(self.alice, "cherry"))["count"], 2)

    async def test_very_many_rooms(self) -> None:
        await self.start()
        await self.say("date")

        def add(txn: Any) -> None:
            txn.many(
                "INSERT INTO memberships (room_nid, user_id, membership, event_id, event_nid,"
                " sender, pos, is_local, forgotten)"
                " SELECT room_nid + ?, user_id, membership, event_id, event_nid, sender, pos,"
                " is_local, forgotten FROM memberships WHERE user_id = ? AND room_nid < 100000",
                [(100000 * i, self.alice.user_id) for i in range(1, 400)],
            )
            txn.execute(
                "INSERT INTO rooms (room_nid, room_id, version, head_version, depth, extremities,"
                " state_version, notify_total, highlight_total, last_pos, created_ts,"
                " remote_servers) SELECT room_nid, 'r' || room_nid, '11', 0, 0, '[]', 0, 0, 0, 0,"
                " 0, 0 FROM memberships WHERE room_nid >= 100000",
            )

        await self.server.homeserver.db.write(add)
        self.assertEqual((await self.search(self.alice, "date"))["count"], 1)
