"""Typing over the API and in sync."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.homeserver.api.client.test_account_data import BAD_BODIES
from tests.homeserver.api.client.test_receipts import ReceiptTestCase
from tests.support.server import User


def typing_of(answer: Any, room_id: str) -> list[str] | None:
    """Who types in a room, by a sync answer; None if it says nothing."""
    section = answer.get("rooms", {}).get("join", {}).get(room_id, {})
    events = section.get("ephemeral", {}).get("events", [])
    found = [event for event in events if event["type"] == "m.typing"]
    assert all("room_id" not in event for event in found)
    assert len(found) <= 1
    return found[0]["content"]["user_ids"] if found else None


async def types(user: User, room_id: str, typing: bool = True, **body: Any) -> None:
    """Say that the user types, or not."""
    path = f"/rooms/{room_id}/typing/{user.user_id}"
    await user.ok("PUT", path, {"typing": typing, **body})


class TypingTest(ReceiptTestCase):
    async def test_start_and_stop(self) -> None:
        """Shows RCP-7, SYN-19."""
        await self._meet()
        since = await self._since(self.alice)
        await types(self.bob, self.room_id, timeout=30_000)
        answer = await self.alice.sync(since)
        self.assertEqual(typing_of(answer, self.room_id), [self.bob.user_id])
        self.assertEqual(typing_of(await self.alice.sync(), self.room_id), [self.bob.user_id])
        answer = await self.alice.sync(answer["next_batch"])
        self.assertIsNone(typing_of(answer, self.room_id))
        await types(self.bob, self.room_id, False)
        answer = await self.alice.sync(answer["next_batch"])
        self.assertEqual(typing_of(answer, self.room_id), [])
        self.assertIsNone(typing_of(await self.alice.sync(), self.room_id))

    async def test_the_list_is_replaced(self) -> None:
        """Shows RCP-7."""
        await self._meet()
        since = await self._since(self.alice)
        await types(self.bob, self.room_id)
        await types(self.alice, self.room_id)
        answer = await self.alice.sync(since)
        both = sorted([self.alice.user_id, self.bob.user_id])
        self.assertEqual(typing_of(answer, self.room_id), both)
        await types(self.bob, self.room_id, False)
        answer = await self.alice.sync(answer["next_batch"])
        self.assertEqual(typing_of(answer, self.room_id), [self.alice.user_id])

    async def test_typing_on_is_no_news(self) -> None:
        await self._meet()
        await types(self.bob, self.room_id)
        since = await self._since(self.alice)
        await types(self.bob, self.room_id)
        self.assertIsNone(typing_of(await self.alice.sync(since), self.room_id))

    async def test_it_ends_by_timeout(self) -> None:
        """Shows RCP-7, SYN-31."""
        await self._meet()
        since = await self._since(self.alice)
        await types(self.bob, self.room_id, timeout=1)
        answer = await self.alice.sync(since)
        while typing_of(answer, self.room_id) != []:
            answer = await self.alice.sync(answer["next_batch"], timeout=10_000)

    async def test_it_stays_in_its_room(self) -> None:
        """Shows RCP-7."""
        await self._meet()
        other = await self.alice.create_room(preset="public_chat")
        await self.bob.join(other)
        carol = await self.server.register()
        await carol.join(other)
        since, carols = await self._since(self.alice), await self._since(carol)
        await types(self.bob, self.room_id)
        answer = await self.alice.sync(since)
        self.assertEqual(typing_of(answer, self.room_id), [self.bob.user_id])
        self.assertIsNone(typing_of(answer, other))
        self.assertIsNone(typing_of(await carol.sync(carols), self.room_id))
        self.assertNotIn(self.room_id, str(await carol.sync()))

    async def test_whoever_leaves_types_no_more(self) -> None:
        """Shows RCP-7."""
        await self._meet()
        await types(self.bob, self.room_id)
        since = await self._since(self.alice)
        await self.bob.leave(self.room_id)
        self.assertEqual(typing_of(await self.alice.sync(since), self.room_id), [])

    async def test_a_waiting_sync_is_woken(self) -> None:
        """Shows SYN-31."""
        await self._meet()
        since = await self._since(self.alice)
        waiting = Deferred.fromCoroutine(self.alice.sync(since, timeout=30_000))
        await types(self.bob, self.room_id)
        self.assertEqual(typing_of(await waiting, self.room_id), [self.bob.user_id])

    async def test_refusals(self) -> None:
        """Shows RCP-7."""
        await self._meet()
        carol = await self.server.register()
        own = f"/rooms/{self.room_id}/typing/{self.bob.user_id}"
        body = {"typing": True, "timeout": 1000}
        for user, path, content, status, errcode in (
            (self.alice, own, body, 403, "M_FORBIDDEN"),
            (carol, f"/rooms/{self.room_id}/typing/{carol.user_id}", body, 403, "M_FORBIDDEN"),
            (self.bob, f"/rooms/!no:where/typing/{self.bob.user_id}", body, 403, "M_FORBIDDEN"),
            (self.bob, f"/rooms/nonsense/typing/{self.bob.user_id}", body, 400, "M_INVALID_PARAM"),
            (self.bob, f"/rooms/{self.room_id}/typing/bob", body, 400, "M_INVALID_PARAM"),
            (self.bob, own, {}, 400, "M_MISSING_PARAM"),
            (self.bob, own, {"typing": "yes"}, 400, "M_BAD_JSON"),
            (self.bob, own, {"typing": True, "timeout": "1"}, 400, "M_BAD_JSON"),
            (self.bob, own, {"typing": True, "timeout": 2**60}, 400, "M_BAD_JSON"),
        ):
            answer = await user.call("PUT", path, content)
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), path)
        for bad in BAD_BODIES:
            self.assertEqual((await self.bob.call("PUT", own, body=bad)).status, 400, bad)
        self.assertIsNone(typing_of(await self.alice.sync(), self.room_id))

    async def test_odd_timeouts(self) -> None:
        await self._meet()
        await types(self.bob, self.room_id, timeout=-5)
        self.assertIsNone(typing_of(await self.alice.sync(), self.room_id))
        await types(self.bob, self.room_id, timeout=2**52)
        self.assertEqual(typing_of(await self.alice.sync(), self.room_id), [self.bob.user_id])
