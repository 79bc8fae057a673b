"""What clients see of rooms that other servers are in: history, people, and what is not stored."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from tests.support.federation import FederatedServer, eventually, make_federation
from tests.support.server import User

Json = dict[str, Any]


class SharedViewsTest(TestCase):
    timeout = 100

    async def servers(self) -> tuple[User, User]:
        """Alice on one server and Bob on another."""
        self.a: FederatedServer
        self.a, self.b = await make_federation(self, 2)
        alice, bob = await self.a.register("alice"), await self.b.register("bob")
        return alice, bob

    async def join(self, user: User, room_id: str) -> None:
        await user.ok("POST", f"/join/{quote(room_id)}", {}, query={"via": self.a.name})

    async def history(self, user: User, room_id: str, token: str | None) -> list[str]:
        """Event IDs before a token, the newest first."""
        found: list[str] = []
        while True:
            query: Json = {"dir": "b", "limit": 3}
            query |= {"from": token} if token is not None else {}
            page = await user.ok("GET", f"/rooms/{quote(room_id)}/messages", query=query)
            found += [event["event_id"] for event in page["chunk"]]
            token = page.get("end")
            if token is None:
                return found

    async def comes(self, user: User, since: str, what: Any) -> Json:
        """Sync until something is in an answer."""
        tokens, found = [since], list[Json]()

        async def there() -> bool:
            answer = await user.sync(tokens[-1], timeout=200)
            tokens.append(answer["next_batch"])
            if what(answer):
                found.append(answer)
            return bool(found)

        await eventually(there, within=30)
        return found[0]

    async def test_the_gap_before_a_join(self) -> None:
        """Shows SYN-4, SYN-7."""
        alice, bob = await self.servers()
        room_id = await alice.create_room(preset="public_chat")
        said = [await alice.send(room_id, str(number)) for number in range(7)]
        since = (await bob.sync())["next_batch"]
        await self.join(bob, room_id)
        for token in (since, None):
            room = (await bob.sync(token))["rooms"]["join"][room_id]
            timeline = room["timeline"]
            self.assertEqual(len(timeline["events"]), 1)
            self.assertEqual(timeline["events"][0]["state_key"], bob.user_id)
            self.assertTrue(timeline["limited"])
            self.assertIn("m.room.create", [event["type"] for event in room["state"]["events"]])
            history = await self.history(bob, room_id, timeline["prev_batch"])
            self.assertEqual(history[:7], said[::-1])

    async def test_what_was_before_an_invite_is_hidden(self) -> None:
        """Shows HV-3."""
        alice, bob = await self.servers()
        for visibility, is_invite_enough in (("invited", True), ("joined", False)):
            content = {"history_visibility": visibility}
            room_id = await alice.create_room(
                preset="private_chat",
                initial_state=[{"type": "m.room.history_visibility", "content": content}],
            )
            before = await alice.send(room_id, "before the invite")
            path = f"/rooms/{quote(room_id)}/invite"
            await alice.ok("POST", path, {"user_id": bob.user_id})
            between = await alice.send(room_id, "between")
            await self.join(bob, room_id)
            found = await self.history(bob, room_id, None)
            self.assertNotIn(before, found)
            self.assertEqual(between in found, is_invite_enough)
            for name in [before] + ([] if is_invite_enough else [between]):
                status, _ = await bob.call("GET", f"/rooms/{quote(room_id)}/event/{quote(name)}")
                self.assertEqual(status, 404)

    async def test_what_was_before_a_join_is_shared(self) -> None:
        """Shows HV-3."""
        alice, bob = await self.servers()
        for visibility in ("shared", "world_readable"):
            content = {"history_visibility": visibility}
            room_id = await alice.create_room(
                preset="public_chat",
                initial_state=[{"type": "m.room.history_visibility", "content": content}],
            )
            said = await alice.send(room_id, "before")
            await self.join(bob, room_id)
            self.assertIn(said, await self.history(bob, room_id, None))

    async def test_after_a_leave_nothing_is_fetched_for_them(self) -> None:
        """Shows HV-3, SYN-11."""
        alice, bob = await self.servers()
        carol = await self.b.register("carol")
        room_id = await alice.create_room(preset="public_chat")
        await self.join(bob, room_id)
        await bob.ok("POST", f"/rooms/{quote(room_id)}/leave", {})

        async def is_alone() -> bool:
            path = f"/rooms/{quote(room_id)}/joined_members"
            return len((await alice.ok("GET", path))["joined"]) == 1

        await eventually(is_alone)
        said = [await alice.send(room_id, str(number)) for number in range(3)]
        await self.join(carol, room_id)
        self.assertLessEqual(set(said), set(await self.history(carol, room_id, None)))
        self.assertEqual(set(said) & set(await self.history(bob, room_id, None)), set())
        for name in said:
            status, _ = await bob.call("GET", f"/rooms/{quote(room_id)}/event/{quote(name)}")
            self.assertEqual(status, 404)

    async def test_forgotten_rooms_stay_forgotten(self) -> None:
        """Shows SYN-13."""
        alice, bob = await self.servers()
        carol = await self.b.register("carol")
        room_id = await alice.create_room(preset="public_chat")
        await self.join(bob, room_id)
        await bob.ok("POST", f"/rooms/{quote(room_id)}/leave", {})
        await bob.ok("POST", f"/rooms/{quote(room_id)}/forget", {})
        since = (await bob.sync())["next_batch"]
        # Her state is without Bob first, as he is none of those who a join needs.
        await self.join(carol, room_id)

        async def complete() -> bool:
            return not await self.b.homeserver.db.read(
                lambda txn: txn.all("SELECT room_nid FROM partial_rooms")
            )

        await eventually(complete)
        gone = '{"room":{"include_leave":true}}'
        for query in ({}, {"full_state": True}):
            answer = await bob.sync(since, filter=gone, **query)
            self.assertNotIn(room_id, answer.get("rooms", {}).get("leave", {}))
        answer = await bob.sync(filter=gone)
        self.assertNotIn(room_id, answer.get("rooms", {}).get("leave", {}))

    async def test_presence_when_servers_meet(self) -> None:
        """Shows RCP-8, SYN-26."""
        alice, bob = await self.servers()
        for user in (alice, bob):
            path = f"/presence/{quote(user.user_id)}/status"
            await user.ok("PUT", path, {"presence": "online", "status_msg": user.user_id})
        room_id = await alice.create_room(preset="public_chat")
        since = [(await user.sync(set_presence="offline"))["next_batch"] for user in (alice, bob)]
        await self.join(bob, room_id)
        for user, other, token in ((alice, bob, since[0]), (bob, alice, since[1])):

            def told(answer: Json, name: str = other.user_id) -> bool:
                events = answer.get("presence", {}).get("events", [])
                return any(
                    event["sender"] == name and event["content"].get("status_msg") == name
                    for event in events
                )

            await self.comes(user, token, told)

    async def test_invites_and_knocks_end(self) -> None:
        """Shows SYN-10, SYN-14."""
        alice, bob = await self.servers()
        rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        for kind in ("invite", "knock"):
            room_id = await alice.create_room(initial_state=[rule])
            since = (await bob.sync())["next_batch"]
            path = f"/rooms/{quote(room_id)}"
            if kind == "invite":
                await alice.ok("POST", f"{path}/invite", {"user_id": bob.user_id})
            else:
                await bob.ok("POST", f"/knock/{quote(room_id)}", {}, query={"via": self.a.name})

            def there(answer: Json, kind: str = kind, name: str = room_id) -> Any:
                return answer.get("rooms", {}).get(kind, {}).get(name)

            answer = await self.comes(bob, since, there)
            shown = there(answer)[f"{kind}_state"]["events"]
            self.assertIn("m.room.create", [event["type"] for event in shown])
            self.assertIn(
                ("m.room.member", bob.user_id), [(e["type"], e["state_key"]) for e in shown]
            )
            await alice.ok("POST", f"{path}/kick", {"user_id": bob.user_id})

            def gone(answer: Json, name: str = room_id) -> Any:
                return answer.get("rooms", {}).get("leave", {}).get(name)

            section = gone(await self.comes(bob, answer["next_batch"], gone))
            last = section["timeline"]["events"][-1]
            self.assertEqual((last["sender"], last["state_key"]), (alice.user_id, bob.user_id))
            for sync in (await bob.sync(), await bob.sync(answer["next_batch"], full_state=True)):
                self.assertNotIn(room_id, sync.get("rooms", {}).get(kind, {}))

    async def test_people_of_other_servers(self) -> None:
        """Shows SYN-10, SYN-16, SYN-17, SYN-22, RCP-7."""
        alice, bob = await self.servers()
        room_id = await alice.create_room(preset="public_chat")
        since = (await alice.sync())["next_batch"]
        await self.join(bob, room_id)

        def joined(answer: Json) -> Json:
            found: Json = answer.get("rooms", {}).get("join", {}).get(room_id, {})
            return found

        answer = await self.comes(alice, since, joined)
        summary = joined(answer)["summary"]
        self.assertEqual(summary["m.heroes"], [bob.user_id])
        self.assertEqual(summary["m.joined_member_count"], 2)
        self.assertEqual(answer["device_lists"]["changed"], [bob.user_id])
        said = await bob.send(room_id, "hello")
        answer = await self.comes(alice, answer["next_batch"], joined)
        self.assertEqual(joined(answer)["unread_notifications"]["notification_count"], 1)
        await alice.ok("POST", f"/rooms/{quote(room_id)}/receipt/m.read/{quote(said)}", {})
        path = f"/rooms/{quote(room_id)}/typing/{quote(alice.user_id)}"
        await alice.ok("PUT", path, {"typing": True, "timeout": 20_000})
        since = (await bob.sync())["next_batch"]
        kinds: set[str] = set()

        def ephemeral(answer: Json) -> bool:
            events = joined(answer).get("ephemeral", {}).get("events", [])
            kinds.update(event["type"] for event in events)
            return kinds >= {"m.receipt", "m.typing"}

        ephemeral(await bob.sync())
        if not kinds >= {"m.receipt", "m.typing"}:
            await self.comes(bob, since, ephemeral)
        since = (await bob.sync())["next_batch"]
        body = {"user_id": bob.user_id, "reason": "late"}
        await alice.ok("POST", f"/rooms/{quote(room_id)}/kick", body)
        answer = await self.comes(
            bob, since, lambda answer: room_id in answer.get("rooms", {}).get("leave", {})
        )
        last = answer["rooms"]["leave"][room_id]["timeline"]["events"][-1]
        self.assertEqual((last["sender"], last["content"]["membership"]), (alice.user_id, "leave"))
        self.assertEqual(answer["device_lists"]["left"], [alice.user_id])
