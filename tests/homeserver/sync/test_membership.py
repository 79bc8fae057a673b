"""Rooms that are joined, left, invited to and knocked on, in `/sync`."""

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


class JoinTest(SyncTestCase):
    async def test_newly_joined_room_comes_whole(self) -> None:
        """Shows SYN-7."""
        room_id = await self.alice.create_room(preset="public_chat", name="Tea")
        for number in range(15):
            await self.alice.send(room_id, str(number))
        since = await self.token(self.bob)
        await self.bob.join(room_id)
        section = joined(await self.bob.sync(since), room_id)
        self.assertEqual(state(section)[NAME], {"name": "Tea"})
        self.assertTrue(section["timeline"]["limited"])
        self.assertEqual(
            whole_state(section)["m.room.member", self.bob.user_id]["membership"], "join"
        )

    async def test_after_invite_and_rejoin(self) -> None:
        """Shows SYN-7."""
        room_id = await self.alice.create_room(name="Tea", invite=[self.bob.user_id])
        since = await self.token(self.bob)
        await self.bob.join(room_id)
        answer = await self.bob.sync(since)
        self.assertIn(NAME, whole_state(joined(answer, room_id)))
        await self.bob.leave(room_id)
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.join(room_id)
        answer = await self.bob.sync(answer["next_batch"])
        self.assertIn(NAME, whole_state(joined(answer, room_id)))
        self.assertNotIn("leave", answer["rooms"])

    async def test_join_and_leave_between_two_syncs(self) -> None:
        """Shows SYN-7, SYN-10."""
        room_id = await self.alice.create_room(preset="public_chat", name="Tea")
        since = await self.token(self.bob)
        await self.bob.join(room_id)
        await self.bob.leave(room_id)
        answer = await self.bob.sync(since)
        section = answer["rooms"]["leave"][room_id]
        self.assertEqual(
            whole_state(section)["m.room.member", self.bob.user_id]["membership"], "leave"
        )
        await self.bob.join(room_id)
        answer = await self.bob.sync(answer["next_batch"])
        self.assertIn(NAME, whole_state(joined(answer, room_id)))


class LeaveTest(SyncTestCase):
    async def test_left_room_appears_once_up_to_the_leave(self) -> None:
        """Shows SYN-10, SYN-11."""
        room_id = await self.shared_room(name="Tea")
        since = await self.token(self.bob)
        await self.alice.send(room_id, "before")
        await self.alice.ok("POST", f"/rooms/{room_id}/kick", {"user_id": self.bob.user_id})
        await self.alice.send(room_id, "after")
        await self.alice.set_state(room_id, "m.room.name", {"name": "Secret"})
        answer = await self.bob.sync(since)
        section = answer["rooms"]["leave"][room_id]
        self.assertEqual(bodies(section), ["before"])
        self.assertNotIn(NAME, whole_state(section))
        last = section["timeline"]["events"][-1]
        self.assertEqual(
            (last["state_key"], last["content"]["membership"]), (self.bob.user_id, "leave")
        )
        again = await self.bob.sync(answer["next_batch"])
        self.assertNotIn("rooms", again)
        self.assertNotIn("leave", (await self.bob.sync()).get("rooms", {}))

    async def test_include_leave(self) -> None:
        """Shows SYN-10, SYN-11."""
        room_id = await self.shared_room(name="Tea")
        await self.alice.send(room_id, "before")
        await self.bob.leave(room_id)
        await self.alice.send(room_id, "after")
        await self.alice.set_state(room_id, "m.room.name", {"name": "Secret"})
        for full in (False, True):
            answer = await self.bob.sync(filter=filtered(include_leave=True), full_state=full)
            section = answer["rooms"]["leave"][room_id]
            self.assertEqual(bodies(section), ["before"])
            self.assertEqual(whole_state(section)[NAME], {"name": "Tea"})

    async def test_gap_before_the_leave(self) -> None:
        """Shows SYN-10."""
        room_id = await self.shared_room(name="Tea")
        since = await self.token(self.bob)
        await self.alice.set_state(room_id, "m.room.name", {"name": "Coffee"})
        for number in range(15):
            await self.alice.send(room_id, str(number))
        await self.bob.leave(room_id)
        section = (await self.bob.sync(since))["rooms"]["leave"][room_id]
        self.assertTrue(section["timeline"]["limited"])
        self.assertEqual(state(section), {NAME: {"name": "Coffee"}})

    async def test_account_data_of_a_room_that_was_left(self) -> None:
        """Shows SYN-10, SYN-20."""
        room_id = await self.shared_room()
        path = f"/user/{self.bob.user_id}/rooms/{room_id}/account_data/org.test"
        await self.bob.ok("PUT", path, {"a": 1})
        since = await self.token(self.bob)
        await self.bob.ok("PUT", path + ".new", {"b": 2})
        await self.bob.leave(room_id)
        expected = [{"type": "org.test.new", "content": {"b": 2}}]
        left = (await self.bob.sync(since))["rooms"]["leave"][room_id]
        self.assertEqual(left["account_data"]["events"], expected)
        archived = await self.bob.sync(filter=filtered(include_leave=True))
        found = archived["rooms"]["leave"][room_id]["account_data"]["events"]
        self.assertEqual({event["type"] for event in found}, {"org.test", "org.test.new"})

    async def test_rejected_invite_shows_the_own_leave(self) -> None:
        """Shows SYN-12."""
        room_id = await self.alice.create_room(invite=[self.bob.user_id], name="Tea")
        since = await self.token(self.bob)
        await self.bob.leave(room_id)
        answer = await self.bob.sync(since)
        section = answer["rooms"]["leave"][room_id]
        self.assertEqual(
            [e["state_key"] for e in section["timeline"]["events"]], [self.bob.user_id]
        )
        self.assertEqual(section["state"]["events"], [])
        self.assertNotIn("rooms", await self.bob.sync(answer["next_batch"]))

    async def test_forgotten_rooms_never_show_up(self) -> None:
        """Shows SYN-13."""
        room_id = await self.shared_room()
        await self.bob.leave(room_id)
        since = await self.token(self.bob)
        await self.bob.ok("POST", f"/rooms/{room_id}/forget", {})
        self.assertNotIn(room_id, (await self.bob.sync(since)).get("rooms", {}).get("leave", {}))
        everything = await self.bob.sync(filter=filtered(include_leave=True))
        self.assertNotIn(room_id, everything.get("rooms", {}).get("leave", {}))
        await self.alice.invite(room_id, self.bob.user_id)
        self.assertIn(room_id, (await self.bob.sync(since))["rooms"]["invite"])


class PendingTest(SyncTestCase):
    async def test_invites_carry_stripped_state(self) -> None:
        """Shows SYN-14."""
        room_id = await self.alice.create_room(
            name="Tea", topic="Leaves", invite=[self.bob.user_id]
        )
        answer = await self.bob.sync()
        events = answer["rooms"]["invite"][room_id]["invite_state"]["events"]
        for event in events:
            self.assertEqual(event.keys(), {"type", "state_key", "sender", "content"})
        found = {(event["type"], event["state_key"]): event["content"] for event in events}
        self.assertIn(("m.room.create", ""), found)
        self.assertEqual(found[NAME], {"name": "Tea"})
        self.assertEqual(found["m.room.member", self.bob.user_id]["membership"], "invite")
        self.assertEqual(found["m.room.member", self.alice.user_id]["membership"], "join")
        later = await self.bob.sync(answer["next_batch"])
        self.assertNotIn("rooms", later)

    async def test_knocks_carry_stripped_state(self) -> None:
        """Shows SYN-14."""
        room_id = await self.alice.create_room(
            name="Tea",
            initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}],
        )
        since = await self.token(self.bob)
        await self.bob.ok("POST", f"/knock/{room_id}", {"reason": "please"})
        events = (await self.bob.sync(since))["rooms"]["knock"][room_id]["knock_state"]["events"]
        found = {(event["type"], event["state_key"]): event["content"] for event in events}
        self.assertIn(("m.room.create", ""), found)
        self.assertEqual(found["m.room.member", self.bob.user_id]["membership"], "knock")

    async def test_ignored_users(self) -> None:
        """Shows SYN-15."""
        room_id = await self.shared_room()
        since = await self.token(self.bob)
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        since = await self.token(self.bob)
        await self.alice.send(room_id, "unheard")
        await self.alice.set_state(room_id, "m.room.name", {"name": "Still named"})
        invited = await self.alice.create_room(invite=[self.bob.user_id])
        answer = await self.bob.sync(since)
        section = joined(answer, room_id)
        self.assertEqual(bodies(section), [])
        self.assertEqual(whole_state(section)[NAME], {"name": "Still named"})
        self.assertNotIn(invited, answer["rooms"].get("invite", {}))
        self.assertNotIn(invited, (await self.bob.sync())["rooms"].get("invite", {}))

    async def test_invites_are_hidden_while_blocked(self) -> None:
        """Shows SYN-15."""
        invited = await self.alice.create_room(invite=[self.bob.user_id])
        path = f"/user/{self.bob.user_id}/account_data/m.invite_permission_config"
        await self.bob.ok("PUT", path, {"default_action": "block"})
        self.assertNotIn(invited, (await self.bob.sync()).get("rooms", {}).get("invite", {}))
        await self.bob.ok("PUT", path, {})
        self.assertIn(invited, (await self.bob.sync())["rooms"]["invite"])


class SummaryTest(SyncTestCase):
    async def test_heroes_and_counts(self) -> None:
        """Shows SYN-16."""
        room_id = await self.alice.create_room(preset="private_chat", invite=[self.bob.user_id])
        section = joined(await self.alice.sync(), room_id)
        self.assertEqual(
            section["summary"],
            {
                "m.heroes": [self.bob.user_id],
                "m.joined_member_count": 1,
                "m.invited_member_count": 1,
            },
        )
        since = await self.token(self.alice)
        await self.bob.join(room_id)
        answer = await self.alice.sync(since)
        summary = joined(answer, room_id)["summary"]
        self.assertEqual(
            (summary["m.joined_member_count"], summary["m.invited_member_count"]), (2, 0)
        )
        await self.bob.send(room_id, "hello")
        quiet = joined(await self.alice.sync(answer["next_batch"]), room_id)
        self.assertNotIn("summary", quiet)
        since = await self.token(self.alice)
        await self.bob.leave(room_id)
        summary = joined(await self.alice.sync(since), room_id)["summary"]
        self.assertEqual(summary["m.heroes"], [self.bob.user_id])
        self.assertEqual(summary["m.joined_member_count"], 1)

    async def test_no_heroes_in_a_named_room(self) -> None:
        """Shows SYN-16."""
        room_id = await self.shared_room(name="Tea")
        self.assertNotIn("m.heroes", joined(await self.bob.sync(), room_id)["summary"])


class ExtrasTest(SyncTestCase):
    async def test_unread_counts_come_with_their_event(self) -> None:
        """Shows SYN-17."""
        room_id = await self.shared_room()
        since = await self.token(self.bob)
        event_id = await self.alice.send(room_id, "one")
        answer = await self.bob.sync(since)
        counts = joined(answer, room_id)["unread_notifications"]
        self.assertEqual(counts, {"notification_count": 1, "highlight_count": 0})
        await self.bob.ok("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {})
        counts = joined(await self.bob.sync(answer["next_batch"]), room_id)["unread_notifications"]
        self.assertEqual(counts, {"notification_count": 0, "highlight_count": 0})

    async def test_ignored_users_are_not_counted(self) -> None:
        """Nobody can read away what they are not shown. Shows SYN-15."""
        room_id = await self.shared_room()
        root = await self.alice.send(room_id, "root")
        thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
        mention = {"m.mentions": {"user_ids": [self.bob.user_id]}}
        for extra in ({}, mention, thread, {**mention, **thread}):
            await self.alice.send(room_id, {"msgtype": "m.text", "body": "hi", **extra})
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        wanted = filtered(timeline={"unread_thread_notifications": True})
        section = joined(await self.bob.sync(filter=wanted), room_id)
        self.assertEqual(section["unread_notifications"]["notification_count"], 3)
        self.assertEqual(section["unread_notifications"]["highlight_count"], 1)
        self.assertEqual(section["unread_thread_notifications"][root]["highlight_count"], 1)
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        section = joined(await self.bob.sync(filter=wanted), room_id)
        nothing = {"notification_count": 0, "highlight_count": 0}
        self.assertEqual(section["unread_notifications"], nothing)
        self.assertEqual(section["unread_thread_notifications"], {})
        carol = await self.server.register("carol")
        await carol.join(room_id)
        await carol.send(room_id, {"msgtype": "m.text", "body": "hi", **mention})
        section = joined(await self.bob.sync(filter=wanted), room_id)
        one = {"notification_count": 1, "highlight_count": 1}
        self.assertEqual(section["unread_notifications"], one)

    async def test_unread_counts_of_threads(self) -> None:
        """Shows SYN-18."""
        room_id = await self.shared_room()
        root = await self.alice.send(room_id, "root")
        relation = {"rel_type": "m.thread", "event_id": root}
        since = await self.token(self.bob)
        mention = {"m.mentions": {"user_ids": [self.bob.user_id]}}
        await self.alice.send(room_id, {"body": "a", "m.relates_to": relation})
        await self.alice.send(room_id, {"body": "b", "m.relates_to": relation, **mention})
        section = joined(await self.bob.sync(since), room_id)
        self.assertEqual(
            section["unread_notifications"], {"notification_count": 3, "highlight_count": 1}
        )
        self.assertNotIn("unread_thread_notifications", section)
        wanted = filtered(timeline={"unread_thread_notifications": True})
        section = joined(await self.bob.sync(since, filter=wanted), room_id)
        self.assertEqual(
            section["unread_notifications"], {"notification_count": 1, "highlight_count": 0}
        )
        self.assertEqual(
            section["unread_thread_notifications"],
            {root: {"notification_count": 2, "highlight_count": 1}},
        )

    async def test_typing_and_receipts(self) -> None:
        """Shows SYN-19."""
        room_id = await self.shared_room()
        event_id = await self.alice.send(room_id, "one")
        await self.alice.ok("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {})
        await self.alice.ok(
            "PUT",
            f"/rooms/{room_id}/typing/{self.alice.user_id}",
            {"typing": True, "timeout": 30000},
        )
        section = joined(await self.bob.sync(), room_id)
        events = {event["type"]: event for event in section["ephemeral"]["events"]}
        self.assertEqual(events["m.typing"]["content"], {"user_ids": [self.alice.user_id]})
        self.assertIn(self.alice.user_id, events["m.receipt"]["content"][event_id]["m.read"])
        for event in events.values():
            self.assertNotIn("room_id", event)

    async def test_account_data(self) -> None:
        """Shows SYN-20."""
        room_id = await self.shared_room()
        me = self.bob.user_id
        await self.bob.ok("PUT", f"/user/{me}/account_data/org.a", {"a": 1})
        await self.bob.ok("PUT", f"/user/{me}/rooms/{room_id}/account_data/org.b", {"b": 1})
        first = await self.bob.sync()
        everything = {e["type"]: e["content"] for e in first["account_data"]["events"]}
        self.assertEqual(everything["org.a"], {"a": 1})
        self.assertIn("m.push_rules", everything)
        data = joined(first, room_id)["account_data"]["events"]
        self.assertEqual(data, [{"type": "org.b", "content": {"b": 1}}])
        await self.bob.ok("PUT", f"/user/{me}/account_data/org.c", {"c": 1})
        later = await self.bob.sync(first["next_batch"])
        self.assertEqual(later["account_data"]["events"], [{"type": "org.c", "content": {"c": 1}}])
        self.assertNotIn("rooms", later)

    async def test_device_counts_have_their_place(self) -> None:
        """Shows SYN-24."""
        answer = await self.bob.sync()
        self.assertEqual(answer["device_one_time_keys_count"], {})
        self.assertEqual(answer["device_unused_fallback_key_types"], [])

    async def test_presence_follows_syncing(self) -> None:
        """Shows SYN-25, SYN-26."""
        await self.shared_room()
        since = await self.token(self.alice, set_presence="offline")
        await self.bob.sync(set_presence="offline")
        self.assertNotIn("presence", await self.alice.sync(since, set_presence="offline"))
        await self.bob.sync()
        answer = await self.alice.sync(since, set_presence="offline")
        events = {event["sender"]: event["content"] for event in answer["presence"]["events"]}
        self.assertEqual(events[self.bob.user_id]["presence"], "online")
        await self.bob.sync(set_presence="unavailable")
        answer = await self.alice.sync(answer["next_batch"], set_presence="offline")
        events = {event["sender"]: event["content"] for event in answer["presence"]["events"]}
        self.assertEqual(events[self.bob.user_id]["presence"], "unavailable")
        carol = await self.server.register("carol")
        since = await self.token(carol, set_presence="offline")
        room_id = await self.bob.create_room(preset="public_chat")
        await carol.join(room_id)
        answer = await carol.sync(since, set_presence="offline")
        self.assertIn(self.bob.user_id, [event["sender"] for event in answer["presence"]["events"]])


class OrderTest(SyncTestCase):
    async def test_events_come_in_the_order_of_their_arrival(self) -> None:
        """Shows SYN-9."""
        room_id = await self.shared_room()
        since = await self.token(self.alice)
        sent = [
            await (self.alice, self.bob)[number % 2].send(room_id, str(number))
            for number in range(6)
        ]
        for user in (self.alice, self.bob):
            section = joined(await user.sync(since), room_id)
            self.assertEqual(ids(section["timeline"]["events"]), sent)
