"""Presence over the API and in sync."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.homeserver.api.client.test_account_data import BAD_BODIES
from tests.homeserver.api.client.test_receipts import ReceiptTestCase
from tests.support.server import User, make_server


def presence_of(answer: Any) -> dict[str, Any]:
    """Contents of the presence events of a sync answer, by user."""
    events = answer.get("presence", {}).get("events", [])
    assert all(event["type"] == "m.presence" for event in events)
    return {event["sender"]: event["content"] for event in events}


async def status(user: User, of: User | None = None) -> Any:
    """What the API says of a user."""
    return await user.ok("GET", f"/presence/{(of or user).user_id}/status")


async def set_status(user: User, presence: str, message: str | None = None) -> None:
    """Set the user's own presence."""
    body = {"presence": presence, "status_msg": message}
    await user.ok("PUT", f"/presence/{user.user_id}/status", body)


class PresenceTest(ReceiptTestCase):
    async def test_set_and_get(self) -> None:
        """Shows RCP-8."""
        await self._meet()
        await set_status(self.bob, "online", "here")
        shown = await status(self.alice, self.bob)
        self.assertEqual(
            (shown["presence"], shown["status_msg"], shown["currently_active"]),
            ("online", "here", True),
        )
        self.assertLess(shown["last_active_ago"], 60_000)
        await set_status(self.bob, "unavailable")
        shown = await status(self.alice, self.bob)
        self.assertEqual(shown["presence"], "unavailable")
        self.assertNotIn("status_msg", shown)
        self.assertNotIn("currently_active", shown)

    async def test_nothing_is_known_of_a_new_user(self) -> None:
        alice = await (await make_server(self)).register()
        self.assertEqual(await status(alice), {"presence": "offline"})

    async def test_syncing_makes_online(self) -> None:
        """Shows RCP-8, SYN-25."""
        await self._meet()
        await self.bob.sync(set_presence="offline")
        self.assertEqual((await status(self.alice, self.bob))["presence"], "offline")
        await self.bob.sync()
        self.assertEqual((await status(self.alice, self.bob))["presence"], "online")
        await self.bob.sync(set_presence="unavailable")
        self.assertEqual((await status(self.alice, self.bob))["presence"], "unavailable")

    async def test_changes_come_with_sync(self) -> None:
        """Shows RCP-8."""
        await self._meet()
        carol = await self.server.register()
        await set_status(carol, "online", "unrelated")
        since = await self._since(self.alice)
        await set_status(self.bob, "online", "first")
        await set_status(self.bob, "unavailable", "lunch")
        answer = await self.alice.sync(since)
        found = presence_of(answer)
        self.assertEqual(found.keys(), {self.bob.user_id})
        self.assertEqual(found[self.bob.user_id]["presence"], "unavailable")
        self.assertEqual(found[self.bob.user_id]["status_msg"], "lunch")
        self.assertEqual(presence_of(await self.alice.sync(answer["next_batch"])), {})
        everybody = presence_of(await self.alice.sync())
        self.assertEqual(everybody.keys(), {self.alice.user_id, self.bob.user_id})

    async def test_presence_in_newly_joined_rooms(self) -> None:
        """Shows SYN-26."""
        await self._meet()
        carol = await self.server.register()
        await set_status(self.alice, "online", "in the room")
        await set_status(self.bob, "offline")
        since = (await carol.sync(set_presence="offline"))["next_batch"]
        self.assertEqual(presence_of(await carol.sync(since, set_presence="offline")), {})
        await carol.join(self.room_id)
        found = presence_of(await carol.sync(since, set_presence="offline"))
        self.assertEqual(found[self.alice.user_id]["status_msg"], "in the room")

    async def test_activity_ends_idleness(self) -> None:
        """Shows RCP-8."""
        await self._meet()
        await set_status(self.bob, "unavailable")
        await self.bob.send(self.room_id)
        self.assertEqual((await status(self.alice, self.bob))["presence"], "online")

    async def test_a_waiting_sync_is_woken(self) -> None:
        await self._meet()
        await self.alice.sync()
        since = await self._since(self.alice)
        waiting = Deferred.fromCoroutine(self.alice.sync(since, timeout=30_000))
        await set_status(self.bob, "online", "woken")
        self.assertEqual(presence_of(await waiting)[self.bob.user_id]["status_msg"], "woken")

    async def test_strangers_see_nothing(self) -> None:
        """Shows RCP-9."""
        await self._meet()
        carol = await self.server.register()
        await set_status(self.bob, "online")
        path = f"/presence/{self.bob.user_id}/status"
        for other in (path, "/presence/@nobody:hearth.test/status", "/presence/@x:far.org/status"):
            answer = await carol.call("GET", other)
            self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"), other)
        self.assertEqual(presence_of(await carol.sync()).keys() - {carol.user_id}, set())
        await carol.join(self.room_id)
        self.assertEqual((await status(carol, self.bob))["presence"], "online")
        await carol.leave(self.room_id)
        self.assertEqual((await carol.call("GET", path)).status, 403)

    async def test_refusals(self) -> None:
        """Shows RCP-9."""
        await self._meet()
        own = f"/presence/{self.bob.user_id}/status"
        for user, path, body, expected in (
            (self.alice, own, {"presence": "online"}, (403, "M_FORBIDDEN")),
            (self.bob, "/presence/bob/status", {"presence": "online"}, (400, "M_INVALID_PARAM")),
            (self.bob, own, {}, (400, "M_MISSING_PARAM")),
            (self.bob, own, {"presence": "asleep"}, (400, "M_INVALID_PARAM")),
            (self.bob, own, {"presence": 1}, (400, "M_BAD_JSON")),
            (self.bob, own, {"presence": "online", "status_msg": 1}, (400, "M_BAD_JSON")),
            (
                self.bob,
                own,
                {"presence": "online", "status_msg": "x" * 1025},
                (400, "M_INVALID_PARAM"),
            ),
        ):
            answer = await user.call("PUT", path, body)
            self.assertEqual((answer.status, answer.body["errcode"]), expected, body)
        for bad in BAD_BODIES:
            self.assertEqual((await self.bob.call("PUT", own, body=bad)).status, 400, bad)
        self.assertEqual(await status(self.bob), {"presence": "offline"})


class NoPresenceTest(TestCase):
    async def test_calm_answers(self) -> None:
        """Shows RCP-9."""
        server = await make_server(self, presence={"enabled": False})
        alice, bob = await server.register(), await server.register()
        room_id = await alice.create_room(preset="public_chat")
        path = f"/presence/{alice.user_id}/status"
        self.assertEqual((await bob.call("GET", path)).status, 403)
        await bob.join(room_id)
        await set_status(alice, "online", "hello")
        self.assertEqual(await status(alice), {"presence": "offline"})
        self.assertEqual(await status(bob, alice), {"presence": "offline"})
        answer = await bob.sync()
        self.assertNotIn("presence", answer)
        await alice.send(room_id)
        self.assertNotIn("presence", await bob.sync(answer["next_batch"]))
