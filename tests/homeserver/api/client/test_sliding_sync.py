"""Simplified sliding sync from outside: rooms, windows, positions, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import structlog
from twisted.internet.defer import Deferred

from homeserver.app import build
from tests.homeserver.sync.sliding.scene import SlidingTestCase, required, texts, window
from tests.support.client import Client
from tests.support.network import OfflineReactor
from tests.support.server import TestServer

Json = dict[str, Any]
LAZY = [["m.room.create", ""], ["m.room.member", "$LAZY"]]


class RoomsTest(SlidingTestCase):
    """What is sent of rooms."""

    async def test_flag(self) -> None:
        """Shows XC-1."""
        _, answer = await self.server.client.get("/_matrix/client/versions")
        self.assertIs(answer["unstable_features"]["org.matrix.simplified_msc3575"], True)

    async def test_first_answer(self) -> None:
        """Shows XC-1."""
        room_id = await self.shared_room(name="Tea")
        await self.alice.send(room_id, "one")
        answer = await self.slide(self.bob)
        self.assertEqual(answer["lists"], {"all": {"count": 1}})
        room = answer["rooms"][room_id]
        self.assertIs(room["initial"], True)
        self.assertEqual(room["name"], "Tea")
        self.assertEqual((room["joined_count"], room["invited_count"]), (2, 0))
        self.assertEqual(texts(room), ["one"])
        self.assertEqual(room["num_live"], 0)
        self.assertIs(room["limited"], True)
        self.assertEqual(room["notification_count"], 1)
        self.assertNotIn("heroes", room)
        self.assertEqual(room["membership"], "join")
        keys = {("m.room.create", ""), ("m.room.name", ""), ("m.room.member", self.bob.user_id)}
        self.assertEqual(required(room).keys(), keys)

    async def test_only_news_follow(self) -> None:
        rooms = [await self.shared_room() for _ in range(2)]
        answer = await self.slide(self.bob)
        quiet = await self.slide(self.bob, answer["pos"])
        self.assertEqual(quiet["rooms"], {})
        await self.alice.send(rooms[1], "news")
        answer = await self.slide(self.bob, quiet["pos"])
        self.assertEqual(list(answer["rooms"]), [rooms[1]])
        room = answer["rooms"][rooms[1]]
        self.assertEqual((texts(room), room["num_live"], room["limited"]), (["news"], 1, False))
        self.assertNotIn("initial", room)
        self.assertNotIn("required_state", room)

    async def test_waiting_client_is_woken(self) -> None:
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        waiting = self.wait(self.bob, answer["pos"])
        self.assertFalse(waiting.called)
        await self.alice.send(room_id, "wake up")
        self.assertEqual(texts((await waiting)["rooms"][room_id]), ["wake up"])

    async def test_name_comes_and_goes(self) -> None:
        path = f"/profile/{self.alice.user_id}/displayname"
        await self.alice.ok("PUT", path, {"displayname": "Al"})
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        room = answer["rooms"][room_id]
        self.assertNotIn("name", room)
        self.assertEqual(room["heroes"], [{"user_id": self.alice.user_id, "displayname": "Al"}])
        await self.alice.set_state(room_id, "m.room.name", {"name": "New"})
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual(answer["rooms"][room_id]["name"], "New")
        self.assertNotIn("heroes", answer["rooms"][room_id])
        await self.alice.set_state(room_id, "m.room.name", {"name": ""})
        room = (await self.slide(self.bob, answer["pos"]))["rooms"][room_id]
        self.assertIsNone(room["name"])
        self.assertEqual([hero["user_id"] for hero in room["heroes"]], [self.alice.user_id])

    async def test_avatar(self) -> None:
        room_id = await self.shared_room()
        url = "mxc://hearth.test/abc"
        await self.alice.set_state(room_id, "m.room.avatar", {"url": url})
        answer = await self.slide(self.bob)
        self.assertEqual(answer["rooms"][room_id]["avatar"], url)

    async def test_redacted_name(self) -> None:
        room_id = await self.shared_room()
        event_id = await self.alice.set_state(room_id, "m.room.name", {"name": "Bad"})
        answer = await self.slide(self.bob)
        await self.alice.ok("PUT", f"/rooms/{room_id}/redact/{event_id}/r1", {})
        answer = await self.slide(self.bob, answer["pos"])
        self.assertIsNone(answer["rooms"][room_id]["name"])

    async def test_gap(self) -> None:
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        for number in range(8):
            await self.alice.send(room_id, str(number))
        room = (await self.slide(self.bob, answer["pos"]))["rooms"][room_id]
        self.assertEqual((texts(room), room["limited"]), (list("34567"), True))
        self.assertEqual(room["num_live"], 5)
        page = await self.bob.ok(
            "GET",
            f"/rooms/{room_id}/messages",
            query={"dir": "b", "from": room["prev_batch"], "limit": 3},
        )
        self.assertEqual([event["content"]["body"] for event in page["chunk"]], list("210"))

    async def test_pos_as_token_of_messages(self) -> None:
        room_id = await self.shared_room()
        await self.alice.send(room_id, "before")
        answer = await self.slide(self.bob)
        await self.alice.send(room_id, "after")
        page = await self.bob.ok(
            "GET",
            f"/rooms/{room_id}/messages",
            query={"dir": "b", "from": answer["pos"], "limit": 1},
        )
        self.assertEqual(page["chunk"][0]["content"]["body"], "before")

    async def test_members_come_with_their_events(self) -> None:
        room_id = await self.shared_room()
        carol = await self.server.register("carol")
        await carol.join(room_id)
        await self.alice.send(room_id, "hello")
        lists = {"all": window(limit=1, required_state=LAZY)}
        answer = await self.slide(self.bob, lists=lists)
        members = {key for kind, key in required(answer["rooms"][room_id]) if "member" in kind}
        self.assertEqual(members, {self.alice.user_id})
        await self.alice.send(room_id, "again")
        answer = await self.slide(self.bob, answer["pos"], lists=lists)
        self.assertNotIn("required_state", answer["rooms"][room_id])
        await carol.send(room_id, "me too")
        answer = await self.slide(self.bob, answer["pos"], lists=lists)
        self.assertEqual(
            required(answer["rooms"][room_id]).keys(), {("m.room.member", carol.user_id)}
        )

    async def test_changed_members_without_gap(self) -> None:
        room_id = await self.shared_room()
        lists = {"all": window(limit=5, required_state=LAZY)}
        answer = await self.slide(self.bob, lists=lists)
        path = f"/profile/{self.alice.user_id}/displayname"
        await self.alice.ok("PUT", path, {"displayname": "Alice the Great"})
        room = (await self.slide(self.bob, answer["pos"], lists=lists))["rooms"][room_id]
        member = required(room)["m.room.member", self.alice.user_id]
        self.assertEqual(member["displayname"], "Alice the Great")

    async def test_wildcards(self) -> None:
        room_id = await self.shared_room(name="Wild", topic="Cards")
        for pairs, expected, hidden in (
            ([["*", "*"]], {"m.room.topic", "m.room.member"}, set()),
            ([["*", "*"], ["m.room.member", "$LAZY"]], {"m.room.topic"}, {self.bob.user_id}),
            ([["*", ""]], {"m.room.topic", "m.room.create"}, {self.alice.user_id}),
            ([["m.room.member", "*"]], {"m.room.member"}, {""}),
            ([["*", self.bob.user_id]], {"m.room.member"}, {"", self.alice.user_id}),
        ):
            await self.alice.send(room_id, "so that the timeline shows nothing else")
            lists = {"all": window(limit=1, required_state=pairs)}
            room = (await self.slide(self.bob, lists=lists))["rooms"][room_id]
            found = required(room).keys()
            self.assertEqual(expected - {kind for kind, _ in found}, set(), pairs)
            self.assertEqual(hidden & {key for _, key in found}, set(), pairs)

    async def test_more_state(self) -> None:
        """What a client asks for later is sent at once, and only that."""
        room_id = await self.shared_room(name="Tea", topic="Leaves")
        answer = await self.slide(self.bob)
        lists = {"all": window(required_state=[["m.room.name", ""], ["m.room.topic", ""]])}
        answer = await self.slide(self.bob, answer["pos"], lists=lists)
        self.assertEqual(required(answer["rooms"][room_id]).keys(), {("m.room.topic", "")})
        answer = await self.slide(self.bob, answer["pos"], lists=lists)
        self.assertEqual(answer["rooms"], {})

    async def test_state_that_was_not_asked_for_meanwhile(self) -> None:
        room_id = await self.shared_room(topic="Old")
        with_topic = {"all": window(required_state=[["m.room.topic", ""]])}
        without = {"all": window(required_state=[["m.room.name", ""]])}
        answer = await self.slide(self.bob, lists=with_topic)
        answer = await self.slide(self.bob, answer["pos"], lists=without)
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "New"})
        answer = await self.slide(self.bob, answer["pos"], lists=without)
        self.assertNotIn("required_state", answer["rooms"][room_id])
        answer = await self.slide(self.bob, answer["pos"], lists=with_topic)
        self.assertEqual(
            required(answer["rooms"][room_id]), {("m.room.topic", ""): {"topic": "New"}}
        )

    async def test_more_events(self) -> None:
        """A larger limit brings the newest events at once, also those that were sent."""
        room_id = await self.shared_room()
        for number in range(4):
            await self.alice.send(room_id, str(number))
        answer = await self.slide(self.bob, lists={"all": window(limit=1)})
        self.assertEqual(texts(answer["rooms"][room_id]), ["3"])
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window(limit=3)})
        room = answer["rooms"][room_id]
        self.assertEqual((texts(room), room["num_live"]), (list("123"), 0))
        self.assertIs(room["unstable_expanded_timeline"], True)
        self.assertIs(room["limited"], True)
        # The client has them: asking for fewer in between changes nothing.
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window(limit=1)})
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window(limit=3)})
        self.assertEqual(answer["rooms"], {})

    async def test_more_events_behind_a_gap(self) -> None:
        room_id = await self.shared_room()
        answer = await self.slide(self.bob, lists={"all": window(limit=3)})
        for number in range(4):
            await self.alice.send(room_id, str(number))
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window(limit=1)})
        self.assertEqual(texts(answer["rooms"][room_id]), ["3"])
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window(limit=3)})
        self.assertEqual(texts(answer["rooms"][room_id]), list("123"))

    async def test_history_that_is_not_shared(self) -> None:
        room_id = await self.alice.create_room(preset="public_chat")
        await self.alice.set_state(
            room_id, "m.room.history_visibility", {"history_visibility": "joined"}
        )
        await self.alice.send(room_id, "secret")
        await self.bob.join(room_id)
        await self.alice.send(room_id, "open")
        answer = await self.slide(self.bob, lists={"all": window(limit=20)})
        self.assertEqual(texts(answer["rooms"][room_id]), ["open"])

    async def test_ignored_sender(self) -> None:
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        content: Json = {"ignored_users": {self.alice.user_id: {}}}
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, content)
        await self.alice.send(room_id, "spam")
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual(answer["rooms"].get(room_id, {}).get("timeline", []), [])

    async def test_counts_after_reading(self) -> None:
        room_id = await self.shared_room()
        event_id = await self.alice.send(room_id, "unread")
        answer = await self.slide(self.bob)
        self.assertEqual(answer["rooms"][room_id]["notification_count"], 1)
        await self.bob.ok("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {})
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual(answer["rooms"][room_id]["notification_count"], 0)
        self.assertNotIn("timeline", answer["rooms"][room_id])


class MembershipTest(SlidingTestCase):
    """Invites, knocks, joins and leaves."""

    async def test_invite_then_join(self) -> None:
        room_id = await self.alice.create_room(name="Party")
        answer = await self.slide(self.bob)
        await self.alice.invite(room_id, self.bob.user_id)
        await self.alice.send(room_id, "not for guests")
        answer = await self.slide(self.bob, answer["pos"])
        room = answer["rooms"][room_id]
        self.assertEqual(room["membership"], "invite")
        self.assertNotIn("timeline", room)
        self.assertNotIn("required_state", room)
        state = {event["type"]: event["content"] for event in room["invite_state"]}
        self.assertEqual(state["m.room.name"], {"name": "Party"})
        self.assertEqual(state["m.room.member"]["membership"], "invite")
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual(answer["rooms"], {})
        await self.bob.join(room_id)
        room = (await self.slide(self.bob, answer["pos"]))["rooms"][room_id]
        self.assertEqual((room["membership"], room["initial"]), ("join", True))
        self.assertEqual(room["name"], "Party")
        self.assertIn(("m.room.create", ""), required(room))

    async def test_invite_wakes(self) -> None:
        room_id = await self.alice.create_room()
        answer = await self.slide(self.bob)
        waiting = self.wait(self.bob, answer["pos"])
        await self.alice.invite(room_id, self.bob.user_id)
        self.assertIn("invite_state", (await waiting)["rooms"][room_id])

    async def test_rejected_invite(self) -> None:
        room_id = await self.alice.create_room()
        await self.alice.invite(room_id, self.bob.user_id)
        answer = await self.slide(self.bob)
        await self.bob.leave(room_id)
        answer = await self.slide(self.bob, answer["pos"])
        room = answer["rooms"][room_id]
        self.assertEqual(room["membership"], "leave")
        self.assertNotIn("invite_state", room)
        member = required(room)["m.room.member", self.bob.user_id]
        self.assertEqual(member["membership"], "leave")
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual((answer["rooms"], answer["lists"]["all"]["count"]), ({}, 0))

    async def test_leave(self) -> None:
        """The client is told once, and not of what happens afterwards."""
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        await self.alice.send(room_id, "farewell")
        await self.bob.leave(room_id)
        await self.alice.send(room_id, "is he gone?")
        answer = await self.slide(self.bob, answer["pos"])
        room = answer["rooms"][room_id]
        self.assertEqual((room["membership"], texts(room)), ("leave", ["farewell"]))
        member = required(room)["m.room.member", self.bob.user_id]
        self.assertEqual(member["membership"], "leave")
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual((answer["rooms"], answer["lists"]["all"]["count"]), ({}, 0))

    async def test_left_before(self) -> None:
        room_id = await self.shared_room()
        await self.bob.leave(room_id)
        answer = await self.slide(self.bob)
        self.assertEqual((answer["rooms"], answer["lists"]["all"]["count"]), ({}, 0))
        answer = await self.slide(
            self.bob, room_subscriptions={room_id: {"timeline_limit": 10, "required_state": []}}
        )
        self.assertEqual(answer["rooms"], {})

    async def test_kicked(self) -> None:
        """Who was removed by others sees the room in new connections, too."""
        room_id = await self.shared_room(name="Club")
        body = {"user_id": self.bob.user_id, "reason": "noise"}
        await self.alice.ok("POST", f"/rooms/{room_id}/kick", body)
        await self.alice.send(room_id, "at last")
        room = (await self.slide(self.bob))["rooms"][room_id]
        self.assertEqual(room["membership"], "leave")
        self.assertEqual(texts(room), [])
        self.assertEqual(required(room)["m.room.member", self.bob.user_id]["reason"], "noise")
        await self.bob.ok("POST", f"/rooms/{room_id}/forget", {})
        self.assertEqual((await self.slide(self.bob))["rooms"], {})

    async def test_banned_without_joining(self) -> None:
        room_id = await self.alice.create_room()
        body = {"user_id": self.bob.user_id}
        await self.alice.ok("POST", f"/rooms/{room_id}/ban", body)
        self.assertEqual((await self.slide(self.bob))["rooms"], {})

    async def test_back_again(self) -> None:
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        await self.bob.leave(room_id)
        await self.alice.set_state(room_id, "m.room.name", {"name": "Meanwhile"})
        await self.bob.join(room_id)
        room = (await self.slide(self.bob, answer["pos"]))["rooms"][room_id]
        self.assertEqual((room["initial"], room["name"]), (True, "Meanwhile"))

    async def test_knock(self) -> None:
        room_id = await self.alice.create_room(name="Door")
        await self.alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
        answer = await self.slide(self.bob)
        await self.bob.ok("POST", f"/knock/{room_id}", {})
        room = (await self.slide(self.bob, answer["pos"]))["rooms"][room_id]
        self.assertEqual(room["membership"], "knock")
        members = [event for event in room["invite_state"] if event["type"] == "m.room.member"]
        self.assertIn("knock", [event["content"]["membership"] for event in members])

    async def test_room_of_others(self) -> None:
        room_id = await self.alice.create_room(preset="public_chat")
        subscription = {room_id: {"timeline_limit": 10, "required_state": [["*", "*"]]}}
        answer = await self.slide(self.bob, room_subscriptions=subscription)
        self.assertEqual(answer["rooms"], {})
        waiting = self.wait(self.bob, answer["pos"], room_subscriptions=subscription)
        await self.bob.join(room_id)
        self.assertIn(room_id, (await waiting)["rooms"])


class PositionsTest(SlidingTestCase):
    """Connections and their positions."""

    async def unknown(self, pos: str, **body: Any) -> None:
        status, answer = await self.call(self.bob, pos, **body)
        self.assertEqual((status, answer["errcode"]), (400, "M_UNKNOWN_POS"))

    async def test_lost_answer(self) -> None:
        """Who asks again gets the same again."""
        room_id = await self.shared_room()
        first = await self.slide(self.bob, lists={"all": window((0, 0))})
        other = await self.shared_room()
        await self.alice.send(room_id, "hello")
        again = []
        for _ in range(3):
            answer = await self.slide(self.bob, first["pos"])
            self.assertEqual(answer["rooms"].keys(), {room_id, other})
            self.assertIs(answer["rooms"][other]["initial"], True)
            again.append(answer)
        quiet = await self.slide(self.bob, again[2]["pos"])
        self.assertEqual(quiet["rooms"], {})

    async def test_old_positions_are_forgotten(self) -> None:
        first = await self.slide(self.bob)
        await self.shared_room()
        second = await self.slide(self.bob, first["pos"])
        await self.shared_room()
        third = await self.slide(self.bob, second["pos"])
        await self.unknown(first["pos"])
        await self.slide(self.bob, second["pos"])
        await self.slide(self.bob, third["pos"])

    async def test_nonsense(self) -> None:
        answer = await self.slide(self.bob)
        number = answer["pos"][1:].partition("_")[0]
        for pos in ("", "0", "p", "p1_2", "s1_2", f"p{number}_9999999_0", "p99_0_0", "x" * 5000):
            if pos:
                await self.unknown(pos)

    async def test_positions_of_others(self) -> None:
        answer = await self.slide(self.alice)
        await self.unknown(answer["pos"])
        mine = await self.slide(self.bob, conn_id="one")
        await self.unknown(mine["pos"], conn_id="two")
        await self.unknown(mine["pos"])

    async def test_connections_do_not_touch_each_other(self) -> None:
        room_id = await self.shared_room()
        one = await self.slide(self.bob, conn_id="one")
        two = await self.slide(self.bob, conn_id="two")
        self.assertIn(room_id, two["rooms"])
        await self.alice.send(room_id, "for both")
        for conn_id, answer in (("one", one), ("two", two)):
            answer = await self.slide(self.bob, answer["pos"], conn_id=conn_id)
            self.assertEqual(texts(answer["rooms"][room_id]), ["for both"])

    async def test_after_a_restart(self) -> None:
        """Positions are in the database, as for other processes."""
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        await self.server.restart()
        await self.alice.send(room_id, "welcome back")
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual(texts(answer["rooms"][room_id]), ["welcome back"])
        self.assertNotIn("initial", answer["rooms"][room_id])

    async def test_another_process(self) -> None:
        """A client may be answered now by one process, now by another."""
        config = self.server.homeserver.config
        other = await build(config, OfflineReactor(), structlog.get_logger())
        self.addCleanup(lambda: Deferred.fromCoroutine(other.stop()))
        bobs = [self.bob, replace(self.bob, server=TestServer(other, Client(other.router)))]
        known: set[str] = set()
        before: set[str] = set()
        pos = None
        for turn in range(6):
            known.add(await self.shared_room())
            answer = await self.slide(bobs[turn % 2], pos)
            self.assertEqual(answer["rooms"].keys(), known - before)
            pos, before = answer["pos"], set(known)
        answer = await self.slide(bobs[0], pos)
        self.assertEqual(answer["rooms"], {})

    async def test_beginning_anew(self) -> None:
        first = await self.slide(self.bob)
        await self.slide(self.bob)
        anew = await self.slide(self.bob)
        await self.slide(self.bob, anew["pos"])
        await self.unknown(first["pos"])

    async def test_too_many_connections(self) -> None:
        answers = [await self.slide(self.bob, conn_id=f"c{number}") for number in range(21)]
        await self.unknown(answers[0]["pos"], conn_id="c0")
        await self.slide(self.bob, answers[1]["pos"], conn_id="c1")

    async def test_expiry(self) -> None:
        answer = await self.slide(self.bob)
        db = self.server.homeserver.db
        await db.write(lambda txn: txn.execute("UPDATE sliding_positions SET used_ts = 0"))
        await self.unknown(answer["pos"])

    async def test_deleted_device(self) -> None:
        await self.slide(self.bob)
        await self.bob.ok("POST", "/logout", {})
        db = self.server.homeserver.db
        left = await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM sliding_positions"))
        self.assertEqual(left, 0)


class BadInputTest(SlidingTestCase):
    """Requests that are refused, and say why."""

    async def refused(self, errcode: str, **body: Any) -> str:
        status, answer = await self.call(self.bob, **body)
        self.assertEqual((status, answer["errcode"]), (400, errcode), json.dumps(body)[:200])
        error: str = answer["error"]
        return error

    async def test_too_much(self) -> None:
        invalid = "M_INVALID_PARAM"
        many = {f"l{number}": window() for number in range(101)}
        self.assertIn("lists", await self.refused(invalid, lists=many))
        rooms = {f"!r{number}:x": {"timeline_limit": 1} for number in range(1001)}
        self.assertIn("room_subscriptions", await self.refused(invalid, room_subscriptions=rooms))
        ranges = [[number, number] for number in range(101)]
        self.assertIn("ranges", await self.refused(invalid, lists={"a": {"ranges": ranges}}))
        state = [[f"t{number}", ""] for number in range(201)]
        lists = {"a": window(required_state=state)}
        self.assertIn("required_state", await self.refused(invalid, lists=lists))
        lists = {
            f"l{number}": window(required_state=[[f"t{number}", str(key)] for key in range(200)])
            for number in range(11)
        }
        self.assertIn("different pairs", await self.refused(invalid, lists=lists))
        for filters in (
            {"room_types": ["x"] * 201},
            {"tags": ["x" * 256]},
            {"room_name_like": "x" * 256},
            {"spaces": [f"!{number}" for number in range(201)]},
        ):
            await self.refused(invalid, lists={"a": window(filters=filters)})
        await self.refused(invalid, conn_id="x" * 256)
        await self.refused(invalid, lists={"x" * 256: window()})
        await self.refused(
            invalid, extensions={"receipts": {"enabled": True, "rooms": ["x"] * 1001}}
        )

    async def test_wrong_values(self) -> None:
        wrong: list[Json] = [
            {"lists": []},
            {"lists": {"a": {"timeline_limit": "5"}}},
            {"lists": {"a": {"filters": {"is_dm": "yes"}}}},
            {"room_subscriptions": ["!a"]},
            {"lists": {"a": {"required_state": [["m.room.name", 1]]}}},
        ]
        for body in wrong:
            await self.refused("M_BAD_JSON", **body)
        wrong = [
            {"lists": {"a": {"ranges": [[0]]}}},
            {"lists": {"a": {"ranges": [[-1, 5]]}}},
            {"lists": {"a": {"timeline_limit": -1}}},
            {"lists": {"a": {"required_state": [["m.room.name"]]}}},
            {"extensions": {"to_device": {"enabled": True, "limit": 0}}},
        ]
        for body in wrong:
            await self.refused("M_INVALID_PARAM", **body)
        await self.refused("M_INVALID_PARAM", lists={"a": window((5, 4))})
        await self.refused("M_INVALID_PARAM", set_presence="busy")
        for since in ("x", "-1", "9" * 19, "1" * 300, "\u0661"):
            to_device = {"enabled": True, "since": since}
            await self.refused("M_INVALID_PARAM", extensions={"to_device": to_device})

    async def test_texts_that_cannot_be_stored(self) -> None:
        for text in ("\x00", "\ud800"):
            bodies: list[Json] = [
                {"conn_id": text},
                {"lists": {text: window()}},
                {"lists": {"a": window(required_state=[["m.room.name", text]])}},
                {"room_subscriptions": {text: {}}},
            ]
            for body in bodies:
                status, answer = await self.call(self.bob, **body)
                self.assertEqual(status, 400, answer)

    async def test_huge_numbers(self) -> None:
        huge = 10**40
        status, _ = await self.call(self.bob, lists={"a": window((0, huge), limit=huge)})
        self.assertIn(status, (200, 400))
        to_device = {"enabled": True, "limit": huge}
        status, _ = await self.call(self.bob, extensions={"to_device": to_device})
        self.assertIn(status, (200, 400))

    async def test_harmless_oddities(self) -> None:
        room_id = await self.shared_room()
        lists = {
            "huge": window((0, 2**53 - 1), limit=2**53 - 1),
            "beyond": window((500, 600)),
            "empty": {"ranges": []},
            "overlap": window((0, 5), (3, 9)),
            "none": window(filters={"room_types": [], "spaces": ["!nowhere"]}),
        }
        subscriptions: Json = {"no room": {}, "!gone:x": {"required_state": [["*", "*"]]}}
        answer = await self.slide(self.bob, lists=lists, room_subscriptions=subscriptions)
        self.assertEqual(answer["rooms"].keys(), {room_id})
        self.assertEqual(sorted(answer["rooms"][room_id]["lists"]), ["huge", "overlap"])
        self.assertEqual(answer["lists"]["none"], {"count": 0})

    async def test_transaction_ids_are_not_answered(self) -> None:
        """The Rust SDK would leave out of later requests what it takes for acknowledged."""
        self.assertNotIn("txn_id", await self.slide(self.bob, txn_id="t1"))

    async def test_without_token(self) -> None:
        path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
        status, answer = await self.server.client.post(path, {})
        self.assertEqual((status, answer["errcode"]), (401, "M_MISSING_TOKEN"))
