"""Timelines, gaps and state in `/sync`."""

from __future__ import annotations

from tests.homeserver.sync.scene import (
    SyncTestCase,
    bodies,
    filtered,
    ids,
    joined,
    state,
    whole_state,
)

NAME = ("m.room.name", "")


class InitialTest(SyncTestCase):
    async def test_everything_is_there(self) -> None:
        """Shows SYN-1."""
        room_id = await self.shared_room(name="Tea")
        invited = await self.alice.create_room(invite=[self.bob.user_id])
        knocked = await self.alice.create_room(
            initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
        )
        await self.bob.ok("POST", f"/knock/{knocked}", {})
        for number in range(20):
            await self.alice.send(room_id, str(number))
        answer = await self.bob.sync()
        section = joined(answer, room_id)
        self.assertEqual(bodies(section), [str(number) for number in range(10, 20)])
        self.assertTrue(section["timeline"]["limited"])
        self.assertEqual(state(section)[NAME], {"name": "Tea"})
        self.assertIn(invited, answer["rooms"]["invite"])
        self.assertIn(knocked, answer["rooms"]["knock"])
        self.assertIn("m.push_rules", [e["type"] for e in answer["account_data"]["events"]])

    async def test_limit_of_the_filter(self) -> None:
        """Shows SYN-1, FIL-1."""
        room_id = await self.shared_room()
        for number in range(5):
            await self.alice.send(room_id, str(number))
        answer = await self.bob.sync(filter=filtered(timeline={"limit": 2}))
        self.assertEqual(bodies(joined(answer, room_id)), ["3", "4"])
        answer = await self.bob.sync(filter=filtered(timeline={"limit": 0}))
        section = joined(answer, room_id)
        self.assertEqual(section["timeline"]["events"], [])
        self.assertIn(("m.room.member", self.bob.user_id), state(section))


class LongPollTest(SyncTestCase):
    async def test_waits_for_the_first_change_or_the_timeout(self) -> None:
        """Shows SYN-2."""
        room_id = await self.shared_room()
        since = await self.token(self.bob)
        at_once = await self.bob.sync(since)
        self.assertNotIn("rooms", at_once)
        short = await self.bob.sync(since, timeout=50)
        self.assertNotIn("rooms", short)
        waiting = self.poll(self.bob, since)
        self.assertFalse(waiting.called)
        await self.alice.send(room_id, "now")
        self.assertEqual(bodies(joined(await waiting, room_id)), ["now"])

    async def test_wakes_for_every_kind_of_change(self) -> None:
        """Shows SYN-31, SYN-17, SYN-20."""
        room_id = await self.shared_room()
        event_id = await self.alice.send(room_id, "one")
        other = await self.alice.create_room(invite=[self.bob.user_id])
        changes = [
            (
                "message",
                self.alice,
                "PUT",
                f"/rooms/{room_id}/send/m.room.message/k1",
                {"body": ""},
            ),
            ("receipt", self.alice, "POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {}),
            (
                "typing",
                self.alice,
                "PUT",
                f"/rooms/{room_id}/typing/{self.alice.user_id}",
                {"typing": True, "timeout": 20000},
            ),
            (
                "account data",
                self.bob,
                "PUT",
                f"/user/{self.bob.user_id}/account_data/org.test",
                {"a": 1},
            ),
            (
                "room account data",
                self.bob,
                "PUT",
                f"/user/{self.bob.user_id}/rooms/{room_id}/account_data/org.test",
                {"a": 1},
            ),
            (
                "tag",
                self.bob,
                "PUT",
                f"/user/{self.bob.user_id}/rooms/{room_id}/tags/m.favourite",
                {},
            ),
            (
                "push rule",
                self.bob,
                "PUT",
                "/pushrules/global/content/cake",
                {"pattern": "cake", "actions": ["notify"]},
            ),
            (
                "own receipt",
                self.bob,
                "POST",
                f"/rooms/{room_id}/receipt/m.read.private/{event_id}",
                {},
            ),
            ("rejected invite", self.bob, "POST", f"/rooms/{other}/leave", {}),
            ("invite", self.alice, "POST", f"/rooms/{other}/invite", {"user_id": self.bob.user_id}),
            ("kick", self.alice, "POST", f"/rooms/{room_id}/kick", {"user_id": self.bob.user_id}),
        ]
        for what, user, method, path, body in changes:
            since = await self.token(self.bob)
            waiting = self.poll(self.bob, since)
            await user.ok(method, path, body)
            answer = await waiting
            self.assertTrue(answer.keys() - {"next_batch", "presence"}, what)

    async def test_full_state_answers_at_once(self) -> None:
        """Shows SYN-8."""
        room_id = await self.shared_room(name="Tea")
        since = await self.token(self.bob)
        await self.alice.send(room_id, "new")
        answer = await self.bob.sync(since, full_state=True, timeout=20_000)
        section = joined(answer, room_id)
        self.assertEqual(bodies(section), ["new"])
        self.assertEqual(state(section)[NAME], {"name": "Tea"})
        again = await self.bob.sync(answer["next_batch"], full_state=True, timeout=20_000)
        self.assertEqual(state(joined(again, room_id))[NAME], {"name": "Tea"})

    async def test_bad_parameters(self) -> None:
        """Shows SYN-28."""
        for query in (
            {"since": "nonsense"},
            {"since": "s1"},
            {"since": "s1_99999999999999999999999"},
            {"filter": "999"},
            {"filter": "{"},
            {"filter": '{"room": 1}'},
            {"timeout": "-1"},
            {"timeout": "x"},
            {"set_presence": "x"},
            {"full_state": "x"},
        ):
            status, body = await self.bob.call("GET", "/sync", query=query)
            self.assertEqual(status, 400, (query, body))


class GapTest(SyncTestCase):
    async def test_state_between_the_token_and_the_timeline(self) -> None:
        """Shows SYN-4, SYN-5."""
        room_id = await self.shared_room(name="Tea")
        since = await self.token(self.bob)
        await self.alice.set_state(room_id, "m.room.name", {"name": "Coffee"})
        carol = await self.server.register("carol")
        await carol.join(room_id)
        for number in range(10):
            await self.alice.send(room_id, str(number))
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "beans"})
        section = joined(await self.bob.sync(since), room_id)
        self.assertTrue(section["timeline"]["limited"])
        self.assertEqual(state(section).keys(), {NAME, ("m.room.member", carol.user_id)})
        self.assertEqual(state(section)[NAME], {"name": "Coffee"})
        self.assertEqual(whole_state(section)["m.room.topic", ""], {"topic": "beans"})
        shown = set(ids(section["timeline"]["events"]))
        self.assertFalse(shown & set(ids(section["state"]["events"])))

    async def test_prev_batch_goes_on_where_the_timeline_begins(self) -> None:
        """Shows SYN-4, RD-1."""
        room_id = await self.shared_room()
        since = await self.token(self.bob)
        for number in range(25):
            await self.alice.send(room_id, str(number))
        section = joined(await self.bob.sync(since), room_id)
        page = await self.bob.ok(
            "GET",
            f"/rooms/{room_id}/messages",
            query={"dir": "b", "from": section["timeline"]["prev_batch"], "limit": 15},
        )
        older = [event["content"]["body"] for event in page["chunk"]]
        self.assertEqual(older, [str(number) for number in range(14, -1, -1)])

    async def test_timeline_and_state_always_give_the_current_state(self) -> None:
        """Shows SYN-5."""
        room_id = await self.shared_room(name="0")
        known = whole_state(joined(await self.bob.sync(), room_id))
        since = await self.token(self.bob)
        for number in range(1, 29):
            for _ in range(number % 4):
                await self.alice.send(room_id, "x")
            await self.alice.set_state(room_id, "m.room.name", {"name": str(number)})
            if number % 3 == 0:
                await self.alice.set_state(room_id, "org.test", {"n": number}, str(number % 2))
            if number % 7:
                continue
            answer = await self.bob.sync(since, filter=filtered(timeline={"limit": 3}))
            since = answer["next_batch"]
            known |= whole_state(joined(answer, room_id))
        current = await self.bob.ok("GET", f"/rooms/{room_id}/state")
        self.assertEqual(
            {key: known[key] for key in known if key[0] in ("m.room.name", "org.test")},
            {
                (event["type"], event["state_key"]): event["content"]
                for event in current
                if event["type"] in ("m.room.name", "org.test")
                and (event["type"], event["state_key"]) in known
            },
        )

    async def test_state_after(self) -> None:
        """Shows SYN-6."""
        room_id = await self.shared_room(name="Tea")
        since = await self.token(self.bob)
        await self.alice.set_state(room_id, "m.room.name", {"name": "Coffee"})
        await self.alice.send(room_id, "x")
        section = joined(await self.bob.sync(since, use_state_after=True), room_id)
        self.assertNotIn("state", section)
        self.assertEqual(state(section, "state_after"), {NAME: {"name": "Coffee"}})
        answer = await self.bob.sync(since, use_state_after=True)
        since = answer["next_batch"]
        await self.alice.send(room_id, "y")
        section = joined(await self.bob.sync(since, use_state_after=True), room_id)
        self.assertEqual(section["state_after"], {"events": []})

    async def test_tokens_neither_lose_nor_repeat(self) -> None:
        """Shows SYN-3, SYN-9."""
        room_id = await self.shared_room()
        since = first = await self.token(self.bob)
        seen = []
        for number in range(12):
            await self.alice.send(room_id, str(number))
            if number % 3 == 2:
                answer = await self.bob.sync(since)
                since = answer["next_batch"]
                seen += bodies(joined(answer, room_id))
        self.assertEqual(seen, [str(number) for number in range(12)])
        again = await self.bob.sync(first, filter=filtered(timeline={"limit": 50}))
        self.assertEqual(bodies(joined(again, room_id)), seen)

    async def test_bundled_aggregations(self) -> None:
        """Shows SYN-27."""
        room_id = await self.shared_room()
        since = await self.token(self.bob)
        root = await self.alice.send(room_id, "root")
        relation = {"rel_type": "m.thread", "event_id": root}
        await self.alice.send(room_id, {"body": "a", "m.relates_to": relation})
        section = joined(await self.bob.sync(since), room_id)
        event = section["timeline"]["events"][0]
        self.assertEqual(event["unsigned"]["m.relations"]["m.thread"]["count"], 1)


class EchoTest(SyncTestCase):
    async def test_own_events_are_in_the_next_sync(self) -> None:
        """Shows SND-11, SND-2."""
        room_id = await self.alice.create_room()
        since = await self.token(self.alice)
        event_id = await self.alice.send(room_id, "mine")
        section = joined(await self.alice.sync(since), room_id)
        event = section["timeline"]["events"][-1]
        self.assertEqual(event["event_id"], event_id)
        self.assertIn("transaction_id", event["unsigned"])
