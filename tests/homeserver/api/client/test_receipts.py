"""Receipts and read markers over the API and in sync."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.homeserver.api.client.test_account_data import room_data_of
from tests.support.server import TestServer, User, make_server


def receipts_of(answer: Any, room_id: str) -> dict[str, Any]:
    """The content of `m.receipt` in a room of a sync answer; empty if there is none."""
    section = answer.get("rooms", {}).get("join", {}).get(room_id, {})
    events = section.get("ephemeral", {}).get("events", [])
    found = [event["content"] for event in events if event["type"] == "m.receipt"]
    assert len(found) <= 1
    assert all("room_id" not in event for event in events)
    return found[0] if found else {}


def thread(root: str, body: str = "in the thread") -> dict[str, Any]:
    """The content of a message in a thread."""
    return {
        "msgtype": "m.text",
        "body": body,
        "m.relates_to": {"rel_type": "m.thread", "event_id": root},
    }


async def read(
    user: User, room_id: str, event_id: str, kind: str = "m.read", thread_id: str | None = None
) -> None:
    """Set a receipt that must be accepted."""
    body = {} if thread_id is None else {"thread_id": thread_id}
    await user.ok("POST", f"/rooms/{room_id}/receipt/{kind}/{event_id}", body)


class ReceiptTestCase(TestCase):
    server: TestServer
    alice: User
    bob: User
    room_id: str

    async def _meet(self) -> None:
        self.server = await make_server(self)
        self.alice, self.bob = await self.server.register(), await self.server.register()
        self.room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.join(self.room_id)

    async def _since(self, user: User) -> str:
        token: str = (await user.sync())["next_batch"]
        return token


class ReceiptsTest(ReceiptTestCase):
    async def test_a_receipt_is_shown_to_everybody(self) -> None:
        """Shows RCP-1, SYN-19."""
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        since = await self._since(self.alice)
        await read(self.bob, self.room_id, event_id)
        for user in (self.alice, self.bob):
            content = receipts_of(await user.sync(), self.room_id)
            self.assertEqual(content.keys(), {event_id})
            self.assertEqual(content[event_id].keys(), {"m.read"})
            shown = content[event_id]["m.read"]
            self.assertEqual(shown.keys(), {self.bob.user_id})
            self.assertEqual(shown[self.bob.user_id].keys(), {"ts"})
            now = reactor.seconds() * 1000
            self.assertLess(abs(shown[self.bob.user_id]["ts"] - now), 60_000)
        answer = await self.alice.sync(since)
        self.assertEqual(receipts_of(answer, self.room_id).keys(), {event_id})
        self.assertEqual(receipts_of(await self.alice.sync(answer["next_batch"]), self.room_id), {})

    async def test_without_a_body(self) -> None:
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        path = f"/rooms/{self.room_id}/receipt/m.read/{event_id}"
        self.assertEqual(await self.bob.ok("POST", path), {})
        self.assertIn(event_id, receipts_of(await self.alice.sync(), self.room_id))

    async def test_an_older_one_replaces_nothing(self) -> None:
        """Shows RCP-1."""
        await self._meet()
        first = await self.alice.send(self.room_id)
        second = await self.alice.send(self.room_id)
        await read(self.bob, self.room_id, second)
        since = await self._since(self.alice)
        await read(self.bob, self.room_id, first)
        await read(self.bob, self.room_id, second)
        self.assertEqual(receipts_of(await self.alice.sync(since), self.room_id), {})
        self.assertEqual(receipts_of(await self.alice.sync(), self.room_id).keys(), {second})

    async def test_one_for_each_type_and_thread(self) -> None:
        """Shows RCP-1."""
        await self._meet()
        root = await self.alice.send(self.room_id)
        reply = await self.alice.send(self.room_id, thread(root))
        later = await self.alice.send(self.room_id)
        last = await self.alice.send(self.room_id)
        await read(self.bob, self.room_id, root, thread_id="main")
        await read(self.bob, self.room_id, reply, thread_id=root)
        await read(self.bob, self.room_id, later)
        await read(self.bob, self.room_id, last, kind="m.read.private")
        content = receipts_of(await self.bob.sync(), self.room_id)
        shown = {
            (event_id, kind, users[self.bob.user_id].get("thread_id"))
            for event_id, kinds in content.items()
            for kind, users in kinds.items()
        }
        self.assertEqual(
            shown,
            {
                (root, "m.read", "main"),
                (reply, "m.read", root),
                (later, "m.read", None),
                (last, "m.read.private", None),
            },
        )
        await read(self.bob, self.room_id, later, thread_id="main")
        content = receipts_of(await self.bob.sync(), self.room_id)
        self.assertNotIn(root, content)

    async def test_private_ones_are_told_to_nobody_else(self) -> None:
        """Shows RCP-2."""
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        since = await self._since(self.alice)
        await read(self.bob, self.room_id, event_id, kind="m.read.private")
        self.assertEqual(receipts_of(await self.alice.sync(since), self.room_id), {})
        self.assertEqual(receipts_of(await self.alice.sync(), self.room_id), {})
        own = receipts_of(await self.bob.sync(), self.room_id)
        self.assertEqual(own[event_id]["m.read.private"].keys(), {self.bob.user_id})

    async def test_the_thread_must_fit(self) -> None:
        """Shows RCP-3."""
        await self._meet()
        root = await self.alice.send(self.room_id)
        reply = await self.alice.send(self.room_id, thread(root))
        other = await self.alice.send(self.room_id)
        reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": reply, "key": "x"}}
        inside = await self.alice.send(self.room_id, reaction, "m.reaction")
        for event_id, thread_id in (
            (reply, "main"),
            (reply, other),
            (other, root),
            (inside, "main"),
            (other, other),
            (other, "nonsense"),
            (other, ""),
            (other, 7),
            (other, None),
            (other, "a\0b"),
        ):
            status, body = await self.bob.call(
                "POST",
                f"/rooms/{self.room_id}/receipt/m.read/{event_id}",
                {"thread_id": thread_id},
            )
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"), thread_id)
        for event_id, good in ((root, "main"), (root, root), (reply, root), (inside, root)):
            await read(self.bob, self.room_id, event_id, thread_id=good)

    async def test_the_marker_has_no_thread(self) -> None:
        """Shows RCP-3."""
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        status, body = await self.bob.call(
            "POST",
            f"/rooms/{self.room_id}/receipt/m.fully_read/{event_id}",
            {"thread_id": "main"},
        )
        self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_the_unthreaded_one_is_shown_of_two_on_one_event(self) -> None:
        """Shows RCP-4."""
        await self._meet()
        for unthreaded_first in (True, False):
            event_id = await self.alice.send(self.room_id)
            for thread_id in (None, "main") if unthreaded_first else ("main", None):
                await read(self.bob, self.room_id, event_id, thread_id=thread_id)
            for user in (self.alice, self.bob):
                content = receipts_of(await user.sync(), self.room_id)
                self.assertNotIn("thread_id", content[event_id]["m.read"][self.bob.user_id])

    async def test_refusals(self) -> None:
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        elsewhere = await self.alice.create_room()
        foreign = await self.alice.send(elsewhere)
        carol = await self.server.register()
        root = f"/rooms/{self.room_id}"
        for user, path, status, errcode in (
            (self.bob, f"{root}/receipt/m.seen/{event_id}", 400, "M_INVALID_PARAM"),
            (self.bob, f"{root}/receipt/m.read/nonsense", 400, "M_INVALID_PARAM"),
            (self.bob, f"{root}/receipt/m.read/$unknown", 404, "M_NOT_FOUND"),
            (self.bob, f"{root}/receipt/m.read/{foreign}", 404, "M_NOT_FOUND"),
            (self.bob, f"/rooms/{elsewhere}/receipt/m.read/{foreign}", 403, "M_FORBIDDEN"),
            (self.bob, f"/rooms/!no:where/receipt/m.read/{foreign}", 403, "M_FORBIDDEN"),
            (carol, f"{root}/receipt/m.read/{event_id}", 403, "M_FORBIDDEN"),
        ):
            answer = await user.call("POST", path, {})
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), path)
        for bad in (b"{", b"[]", b"7", b"\xff"):
            for path in (f"{root}/receipt/m.read/{event_id}", f"{root}/read_markers"):
                answer = await self.bob.call("POST", path, body=bad)
                self.assertEqual(answer.status, 400, (path, bad))
        self.assertEqual(receipts_of(await self.bob.sync(), self.room_id), {})

    async def test_a_waiting_sync_is_woken(self) -> None:
        """Shows SYN-31."""
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        since = await self._since(self.alice)
        waiting = Deferred.fromCoroutine(self.alice.sync(since, timeout=30_000))
        await read(self.bob, self.room_id, event_id)
        self.assertIn(event_id, receipts_of(await waiting, self.room_id))


class ReadMarkersTest(ReceiptTestCase):
    async def test_the_marker_is_account_data(self) -> None:
        await self._meet()
        first = await self.alice.send(self.room_id)
        second = await self.alice.send(self.room_id)
        since = await self._since(self.bob)
        path = f"/rooms/{self.room_id}/read_markers"
        self.assertEqual(await self.bob.ok("POST", path, {"m.fully_read": second}), {})
        expected = {"event_id": second}
        data = f"/user/{self.bob.user_id}/rooms/{self.room_id}/account_data/m.fully_read"
        self.assertEqual(await self.bob.ok("GET", data), expected)
        answer = await self.bob.sync(since)
        self.assertEqual(room_data_of(answer, self.room_id), {"m.fully_read": expected})
        await self.bob.ok("POST", path, {"m.fully_read": first})
        self.assertEqual(await self.bob.ok("GET", data), expected)
        answer = await self.bob.sync(answer["next_batch"])
        self.assertEqual(room_data_of(answer, self.room_id), {})

    async def test_it_sets_receipts_too(self) -> None:
        """Shows RCP-2."""
        await self._meet()
        first = await self.alice.send(self.room_id)
        second = await self.alice.send(self.room_id)
        third = await self.alice.send(self.room_id)
        await self.bob.ok(
            "POST",
            f"/rooms/{self.room_id}/read_markers",
            {"m.fully_read": first, "m.read": second, "m.read.private": third},
        )
        self.assertEqual(receipts_of(await self.alice.sync(), self.room_id).keys(), {second})
        own = receipts_of(await self.bob.sync(), self.room_id)
        self.assertEqual(
            {event: set(kinds) for event, kinds in own.items()},
            {second: {"m.read"}, third: {"m.read.private"}},
        )

    async def test_the_receipt_endpoint_sets_the_marker(self) -> None:
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        await read(self.bob, self.room_id, event_id, kind="m.fully_read")
        answer = await self.bob.sync()
        self.assertEqual(
            room_data_of(answer, self.room_id), {"m.fully_read": {"event_id": event_id}}
        )
        self.assertEqual(receipts_of(answer, self.room_id), {})

    async def test_all_or_nothing(self) -> None:
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        path = f"/rooms/{self.room_id}/read_markers"
        await self.bob.ok("POST", path, {})
        await self.bob.ok("POST", path, {"m.fully_read": None, "org.example": 1})
        for body, status, errcode in (
            ({"m.fully_read": event_id, "m.read": "$unknown"}, 404, "M_NOT_FOUND"),
            ({"m.fully_read": "$unknown", "m.read": event_id}, 404, "M_NOT_FOUND"),
            ({"m.fully_read": 7, "m.read": event_id}, 400, "M_BAD_JSON"),
            ({"m.fully_read": "x", "m.read": event_id}, 400, "M_INVALID_PARAM"),
            ({"m.read": [event_id]}, 400, "M_BAD_JSON"),
        ):
            answer = await self.bob.call("POST", path, body)
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), body)
        answer = await self.bob.sync()
        self.assertEqual(receipts_of(answer, self.room_id), {})
        self.assertEqual(room_data_of(answer, self.room_id), {})
