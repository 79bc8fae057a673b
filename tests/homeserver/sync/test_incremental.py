"""A client that follows a room by `/sync` has its state, whatever it missed in between."""

from __future__ import annotations

from typing import Any

from tests.homeserver.sync.scene import (
    SyncTestCase,
    filtered,
    ids,
    joined,
    members,
    state,
    whole_state,
)

TOPIC = ("m.room.topic", "")
ALL = filtered(timeline={"limit": 100})


class HiddenChangeTest(SyncTestCase):
    async def assert_followed(self, answer: Any, room_id: str) -> None:
        """The state after the answer is the room's."""
        current = await self.bob.ok("GET", f"/rooms/{room_id}/state")
        expected = {(event["type"], event["state_key"]): event["content"] for event in current}
        self.assertEqual(whole_state(joined(answer, room_id)), expected)

    async def test_changes_while_away_that_are_not_visible(self) -> None:
        """The timeline is not shown from before them: clients apply it after `state`.
        Shows SYN-5, SYN-7."""
        room_id = await self.shared_room(
            initial_state=[
                {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
            ]
        )
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "before"})
        since = await self.token(self.bob)
        await self.bob.leave(room_id)
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "hidden"})
        await self.bob.join(room_id)
        sent = await self.alice.send(room_id, "welcome back")
        answer = await self.bob.sync(since, filter=filtered(timeline={"limit": 50}))
        await self.assert_followed(answer, room_id)
        timeline = joined(answer, room_id)["timeline"]
        self.assertTrue(timeline["limited"])
        self.assertEqual(timeline["events"][-1]["event_id"], sent)
        older = await self.bob.ok(
            "GET", f"/rooms/{room_id}/messages", query={"dir": "b", "from": timeline["prev_batch"]}
        )
        shown = [event["content"] for event in older["chunk"] if event["type"] == TOPIC[0]]
        self.assertEqual(shown, [{"topic": "before"}])

    async def test_changes_that_the_filter_hides(self) -> None:
        """As before. Shows SYN-5."""
        room_id = await self.shared_room()
        levels = await self.alice.ok("GET", f"/rooms/{room_id}/state/m.room.power_levels/")
        levels["events"][TOPIC[0]] = 0
        await self.alice.set_state(room_id, "m.room.power_levels", levels)
        for since in (None, await self.token(self.bob)):
            await self.alice.set_state(room_id, TOPIC[0], {"topic": f"hers {since}"})
            await self.bob.set_state(room_id, TOPIC[0], {"topic": f"his {since}"})
            sent = await self.alice.send(room_id, "what do you think?")
            only = filtered(timeline={"senders": [self.alice.user_id]})
            section = joined(await self.bob.sync(since, filter=only), room_id)
            self.assertEqual(whole_state(section)[TOPIC], {"topic": f"his {since}"})
            self.assertEqual(ids(section["timeline"]["events"]), [sent])
            self.assertTrue(section["timeline"]["limited"])


class RejoinTest(SyncTestCase):
    async def test_lazily_loaded_members_come_again(self) -> None:
        """A client may drop what it knew of a room that was left. Shows SYN-7."""
        room_id = await self.shared_room(preset="public_chat")
        lazy = filtered(timeline={"limit": 1}, state={"lazy_load_members": True})
        await self.alice.send(room_id, "one")
        first = await self.bob.sync(filter=lazy)
        self.assertIn(self.alice.user_id, members(joined(first, room_id)))
        await self.bob.leave(room_id)
        second = await self.bob.sync(first["next_batch"], filter=lazy)
        self.assertIn(room_id, second["rooms"]["leave"])
        await self.bob.join(room_id)
        await self.alice.send(room_id, "two")
        third = await self.bob.sync(second["next_batch"], filter=lazy)
        found = members(joined(third, room_id))
        self.assertEqual(found, {self.alice.user_id, self.bob.user_id})

    async def test_what_the_client_has_does_not_follow_what_it_has(self) -> None:
        """Shows SYN-7. A timeline that repeats events takes the place of the old one."""
        room_id = await self.shared_room()
        since = await self.token(self.bob)
        await self.bob.leave(room_id)
        await self.bob.join(room_id)
        again = joined(await self.bob.sync(since, filter=ALL), room_id)["timeline"]
        self.assertEqual(again["events"][0]["type"], "m.room.create")
        self.assertTrue(again["limited"])
        since = await self.token(self.bob)
        new_id = await self.shared_room()
        new = joined(await self.bob.sync(since, filter=ALL), new_id)["timeline"]
        self.assertFalse(new["limited"])

    async def test_members_that_changed_meanwhile(self) -> None:
        """Shows SYN-7, FIL-9. Clients keep up the member list by what syncs tell them."""
        room_id = await self.shared_room()
        carol = await self.server.register("carol")
        await carol.join(room_id)
        key = ("m.room.member", carol.user_id)
        lazy = filtered(timeline={"limit": 1}, state={"lazy_load_members": True})
        since = await self.token(self.bob, filter=lazy)
        await carol.leave(room_id)
        await self.alice.send(room_id, "hello")
        for name in ("state", "state_after"):
            query = {"filter": lazy, "use_state_after": name == "state_after"}
            whole = joined(await self.bob.sync(since, full_state=True, **query), room_id)
            self.assertEqual(state(whole, name)[key]["membership"], "leave")
        await self.bob.leave(room_id)
        left = await self.bob.sync(since, full_state=True, filter=lazy)
        self.assertIn(key, state(left["rooms"]["leave"][room_id]))
        await self.bob.join(room_id)
        section = joined(await self.bob.sync(since, filter=lazy), room_id)
        self.assertEqual(state(section)[key]["membership"], "leave")
        new = joined(await self.bob.sync(filter=lazy), room_id)
        self.assertNotIn(key, state(new))


class NameTest(SyncTestCase):
    async def test_heroes_of_a_room_whose_name_was_redacted(self) -> None:
        """Shows SYN-16. No state changes, and yet clients need the heroes now."""
        room_id = await self.shared_room()
        name_id = await self.alice.set_state(room_id, "m.room.name", {"name": "Tea"})
        since = await self.token(self.bob)
        await self.alice.ok("PUT", f"/rooms/{room_id}/redact/{name_id}/r1", {})
        summary = joined(await self.bob.sync(since), room_id)["summary"]
        self.assertEqual(summary["m.heroes"], [self.alice.user_id])


class HiddenInviteTest(SyncTestCase):
    async def test_a_room_left_before_an_invite_that_is_not_shown(self) -> None:
        """Shows SYN-10, SYN-12. Somebody ignored invites the user back before the next sync."""
        room_id = await self.shared_room()
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        since = await self.token(self.bob)
        await self.bob.leave(room_id)
        await self.alice.invite(room_id, self.bob.user_id)
        answer = await self.bob.sync(since)
        section = answer["rooms"]["leave"][room_id]
        last = section["timeline"]["events"][-1]
        self.assertEqual(last["content"]["membership"], "leave")
        self.assertNotIn("invite", answer["rooms"])
        self.assertNotIn("rooms", await self.bob.sync(answer["next_batch"]))
        self.assertNotIn("rooms", await self.bob.sync())

    async def test_an_invite_that_ended_before_one_that_is_not_shown(self) -> None:
        """Shows SYN-12."""
        room_id = await self.shared_room(power_level_content_override={"invite": 0})
        carol = await self.server.register("carol")
        await self.bob.invite(room_id, carol.user_id)
        path = f"/user/{carol.user_id}/account_data/m.ignored_user_list"
        await carol.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        since = await self.token(carol)
        await carol.leave(room_id)
        await self.alice.invite(room_id, carol.user_id)
        section = (await carol.sync(since))["rooms"]["leave"][room_id]
        (last,) = section["timeline"]["events"]
        self.assertEqual(last["content"]["membership"], "leave")


class ForgottenTest(SyncTestCase):
    async def test_a_room_that_was_left_and_forgotten_is_seen_to_be_left(self) -> None:
        """The user's other devices would go on showing it: this is what servers do, though the
        specification has forgotten rooms never appear. Shows SYN-10."""
        room_id = await self.shared_room()
        first = await self.bob.sync()
        self.assertIn(room_id, first["rooms"]["join"])
        await self.bob.leave(room_id)
        await self.bob.ok("POST", f"/rooms/{room_id}/forget", {})
        answer = await self.bob.sync(first["next_batch"])
        section = answer["rooms"]["leave"][room_id]
        self.assertEqual(
            whole_state(section)["m.room.member", self.bob.user_id]["membership"], "leave"
        )
        self.assertNotIn("rooms", await self.bob.sync(answer["next_batch"]))
        everything = filtered(include_leave=True)
        self.assertNotIn("leave", (await self.bob.sync(filter=everything)).get("rooms", {}))
        again = await self.bob.sync(answer["next_batch"], filter=everything, full_state="true")
        self.assertNotIn("leave", again.get("rooms", {}))
