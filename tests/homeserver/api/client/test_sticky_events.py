"""Sticky events (MSC4354, MSC4480) over the API."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred

from homeserver.sync.streams import sticky as sticky_stream
from storage import sticky_events
from tests.homeserver.sync.sliding.scene import SlidingTestCase, window
from tests.support.client import Answer
from tests.support.room_case import TEXT, q
from tests.support.server import User

PARAMETER = "org.matrix.msc4354.sticky_duration_ms"
EXTENSION = "org.matrix.msc4354.sticky_events"
HOUR = 3_600_000


def ids(section: Any) -> list[str]:
    return [event["event_id"] for event in section.get("events", [])]


def stuck_of(answer: Any, room_id: str) -> Any:
    """The section of a room in a `/sync` answer."""
    return answer.get("rooms", {}).get("join", {}).get(room_id, {}).get("msc4354_sticky", {})


def timeline(limit: int) -> str:
    return json.dumps({"room": {"timeline": {"limit": limit}}})


class StickyEventsTest(SlidingTestCase):
    count = 0

    async def stick(
        self,
        user: User,
        room_id: str,
        duration: Any = HOUR,
        state: bool = False,
        delay: int | None = None,
    ) -> Answer:
        self.count += 1
        kind = "state/org.example.call/x" if state else f"send/m.room.message/s{self.count}"
        path = f"/rooms/{q(room_id)}/{kind}"
        query = {PARAMETER: duration}
        if delay is not None:
            query["org.matrix.msc4140.delay"] = delay
        return await user.call("PUT", path, TEXT, query=query)

    async def stuck(self, user: User, room_id: str, **options: Any) -> str:
        status, body = await self.stick(user, room_id, **options)
        self.assertEqual(status, 200, body)
        event_id: str = body["event_id"]
        return event_id

    async def test_told_once_wherever_the_timeline_begins(self) -> None:
        room_id = await self.shared_room()
        since = (await self.bob.sync())["next_batch"]
        waiting = Deferred.fromCoroutine(self.bob.sync(since, timeout=20_000, filter=timeline(0)))
        first = await self.stuck(self.alice, room_id)
        told = stuck_of(await waiting, room_id)
        self.assertEqual(ids(told), [first])
        event = told["events"][0]
        self.assertEqual(event["msc4354_sticky"], {"duration_ms": HOUR})
        left = event["unsigned"]["msc4354_sticky_duration_ttl_ms"]
        self.assertTrue(0 < left <= HOUR, left)
        second = await self.stuck(self.alice, room_id, state=True)
        await self.alice.send(room_id, "ordinary")
        answer = await self.bob.sync(since, filter=timeline(1))
        self.assertEqual(ids(stuck_of(answer, room_id)), [first, second])
        # What is in the timeline is nowhere else.
        answer = await self.bob.sync(since)
        self.assertEqual(stuck_of(answer, room_id), {})
        shown = answer["rooms"]["join"][room_id]["timeline"]["events"]
        self.assertEqual([e["event_id"] for e in shown][:2], [first, second])
        self.assertIn("msc4354_sticky", shown[0])
        later = await self.bob.sync(answer["next_batch"], filter=timeline(0))
        self.assertEqual(later.get("rooms", {}), {})
        # A client that begins has everything.
        answer = await self.bob.sync(filter=timeline(1))
        self.assertEqual(ids(stuck_of(answer, room_id)), [first, second])

    async def test_who_enters_gets_all_whatever_the_visibility(self) -> None:
        room_id = await self.alice.create_room(
            preset="public_chat",
            initial_state=[
                {
                    "type": "m.room.history_visibility",
                    "state_key": "",
                    "content": {"history_visibility": "joined"},
                }
            ],
        )
        event_id = await self.stuck(self.alice, room_id)
        since = (await self.bob.sync())["next_batch"]
        pos = (await self.slide(self.bob, extensions={EXTENSION: {"enabled": True}}))["pos"]
        await self.bob.join(room_id)
        answer = await self.bob.sync(since)
        self.assertEqual(ids(stuck_of(answer, room_id)), [event_id])
        answer = await self.slide(self.bob, pos, extensions={EXTENSION: {"enabled": True}})
        self.assertEqual(ids(answer["extensions"][EXTENSION]["rooms"][room_id]), [event_id])
        await self.bob.leave(room_id)
        answer = await self.bob.sync(answer.get("next_batch", since))
        self.assertEqual(stuck_of(answer, room_id), {})

    async def test_what_is_redacted_over_or_of_ignored_users_is_not_told(self) -> None:
        room_id = await self.shared_room()
        gone = await self.stuck(self.alice, room_id)
        await self.stuck(self.alice, room_id, duration=0)
        kept = await self.stuck(self.alice, room_id)
        await self.alice.ok("PUT", f"/rooms/{q(room_id)}/redact/{q(gone)}/r", {})
        answer = await self.bob.sync(filter=timeline(0))
        self.assertEqual(ids(stuck_of(answer, room_id)), [kept])
        redacted = await self.bob.ok("GET", f"/rooms/{q(room_id)}/event/{q(gone)}")
        self.assertNotIn("msc4354_sticky", redacted)
        path = f"/user/{q(self.bob.user_id)}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        answer = await self.bob.sync(filter=timeline(0))
        self.assertEqual(stuck_of(answer, room_id), {})
        db = self.server.homeserver.db
        self.assertEqual(await db.write(sticky_events.delete_expired, 2**60), 1)

    async def test_many_come_in_several_answers(self) -> None:
        room_id = await self.shared_room()
        other = await self.shared_room()
        since = (await self.bob.sync())["next_batch"]
        sent = [await self.stuck(self.alice, room) for room in (room_id, other) * 3]
        found: list[str] = []
        with patch.object(sticky_stream, "LIMIT", 2):
            for number in range(4):
                answer = await self.bob.sync(since, filter=timeline(0))
                since = answer["next_batch"]
                new = ids(stuck_of(answer, room_id)) + ids(stuck_of(answer, other))
                self.assertEqual(len(new), 2 if number < 3 else 0)
                found += new
        self.assertEqual(set(found), set(sent))
        lists = {"all": window((0, 0), limit=0)}
        found, pos, token = [], None, None
        for number in range(3):
            wanted = {"enabled": True, "limit": 4, **({"since": token} if token else {})}
            answer = await self.slide(self.bob, pos, lists=lists, extensions={EXTENSION: wanted})
            pos, told = answer["pos"], answer["extensions"].get(EXTENSION, {"rooms": {}})
            token = told.get("next_batch", token)
            self.assertEqual("next_batch" in told, number < 2)
            found += [name for section in told["rooms"].values() for name in ids(section)]
        self.assertEqual(sorted(found), sorted(sent))

    async def test_it_is_said_in_each_way_of_sending(self) -> None:
        room_id = await self.shared_room()
        delayed = await self.stick(self.alice, room_id, delay=HOUR)
        path = "/_matrix/client/unstable/org.matrix.msc4140"
        one = delayed.body["delay_id"]
        body = {"delay": HOUR, "content": TEXT, PARAMETER: 5}
        put = f"{path}/rooms/{q(room_id)}/delayed_event/m.room.message/d"
        two = (await self.alice.ok("PUT", put, body))["delay_id"]
        for delay_id, duration in ((one, HOUR), (two, 5)):
            await self.alice.ok("POST", f"{path}/delayed_events/{delay_id}/send")
            event_id = (await self.alice.ok("GET", f"{path}/delayed_events/{delay_id}"))["event_id"]
            event = await self.bob.ok("GET", f"/rooms/{q(room_id)}/event/{q(event_id)}")
            self.assertEqual(event["msc4354_sticky"], {"duration_ms": duration})
        # The same state is sent again: its time begins anew.
        again = [await self.stuck(self.alice, room_id, state=True) for _ in range(2)]
        self.assertNotEqual(*again)

    async def test_bad_input(self) -> None:
        room_id = await self.shared_room()
        for value in (HOUR + 1, -1, "x", "1.5", "", 2**70):
            for state in (False, True):
                answer = await self.stick(self.alice, room_id, value, state)
                self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        for wanted in (
            {"enabled": True, "since": "x"},
            {"enabled": True, "since": str(2**70)},
            {"enabled": True, "limit": 0},
            {"enabled": True, "limit": "1"},
        ):
            answer = await self.call(self.bob, extensions={EXTENSION: wanted}, lists={})
            self.assertEqual(answer.status, 400, wanted)
        for token in ("s5_0-5", "s5_0-6", "s5_0-", "s5_0-01", "s5_0--1"):
            answer = await self.bob.call("GET", "/sync", query={"since": token})
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        # What a client writes into the content makes nothing sticky.
        content = {**TEXT, "msc4354_sticky": {"duration_ms": HOUR}}
        await self.alice.send(room_id, content)
        answer = await self.bob.sync(filter=timeline(0))
        self.assertEqual(stuck_of(answer, room_id), {})

    async def test_flag(self) -> None:
        answer = await self.server.client.get("/_matrix/client/versions")
        self.assertIs(answer.body["unstable_features"]["org.matrix.msc4354"], True)
