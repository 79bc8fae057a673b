"""Real clients on a real server: two matrix-nio users and one with matrix-js-sdk chat.

matrix-js-sdk needs node and its packages, which `scripts/test` installs; HEARTH_TEST_JS_CLIENT
names the directory where it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nio
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scripts.run_tests import JS_CLIENT
from tests.clients.scripted import PASSWORD, Cast, ScriptedClient, required
from tests.support.process import ServerProcess

PATIENCE = 30
"""Seconds within which a client must see what happened."""


class NioClient:
    """A matrix-nio user that long-polls."""

    def __init__(self, base_url: str, name: str) -> None:
        self.client = nio.AsyncClient(base_url, name)
        self._task: asyncio.Task[Any] | None = None

    async def register(self, name: str) -> None:
        answer = await self.client.register(name, PASSWORD)
        assert isinstance(answer, nio.RegisterResponse), answer
        await self.client.sync(timeout=0, full_state=True)
        self._task = asyncio.create_task(self.client.sync_forever(timeout=10_000))

    async def until(self, check: Callable[[], Any]) -> Any:
        """Wait until something is so in the client's view."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not (found := check()):
            assert asyncio.get_running_loop().time() < deadline, "matrix-nio never saw it"
            await asyncio.sleep(0.02)
        return found

    async def send(self, room_id: str, body: str) -> str:
        answer = await self.client.room_send(
            room_id, "m.room.message", {"msgtype": "m.text", "body": body}
        )
        assert isinstance(answer, nio.RoomSendResponse), answer
        return str(answer.event_id)

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
        await self.client.close()


class ChatTest(TestCase):
    timeout = 180

    async def test_matrix_nio_users_chat(self) -> None:
        """Shows SYN-2, SYN-14, RCP-7."""
        await deferToThread(self._serve, self._nio_chat)

    async def test_matrix_nio_and_matrix_js_sdk_chat(self) -> None:
        """Shows SYN-1, SYN-31."""
        required(JS_CLIENT)
        await deferToThread(self._serve, self._mixed_chat)

    def _serve(self, scenario: Callable[..., Any], *arguments: Any) -> None:
        server = ServerProcess(Path(self.mktemp()).resolve())
        server.start()
        try:
            asyncio.run(scenario(server, *arguments))
        finally:
            status = server.stop()
        self.assertEqual(status, 0, server.log())

    async def _nio_chat(self, server: ServerProcess) -> None:
        alice, bob = NioClient(server.url, "alice"), NioClient(server.url, "bob")
        try:
            await alice.register("alice")
            await bob.register("bob")
            room_id = await self._room_of(alice, bob)
            heard: list[tuple[str, str]] = []
            bob.client.add_event_callback(
                lambda room, event: heard.append((event.sender, event.body)), nio.RoomMessageText
            )
            for number in range(3):
                await alice.send(room_id, f"message {number}")
            await bob.until(lambda: len(heard) == 3)
            self.assertEqual([body for _, body in heard], [f"message {n}" for n in range(3)])
            await alice.client.room_typing(room_id, True)
            await bob.until(lambda: "@alice:localhost" in bob.client.rooms[room_id].typing_users)
        finally:
            await alice.end()
            await bob.end()

    async def _room_of(self, alice: NioClient, bob: NioClient) -> str:
        made = await alice.client.room_create(name="Tea", invite=["@bob:localhost"])
        self.assertIsInstance(made, nio.RoomCreateResponse)
        room_id = str(made.room_id)
        await bob.until(lambda: room_id in bob.client.invited_rooms)
        joined = await bob.client.join(room_id)
        self.assertIsInstance(joined, nio.JoinResponse)
        await alice.until(
            lambda: (
                room_id in alice.client.rooms
                and "@bob:localhost" in alice.client.rooms[room_id].users
            )
        )
        await bob.until(lambda: room_id in bob.client.rooms)
        return room_id

    async def _mixed_chat(self, server: ServerProcess) -> None:
        alice, bob = NioClient(server.url, "alice"), NioClient(server.url, "bob")
        cast = Cast(Path(self.mktemp()))
        carol = await cast.js(server)
        try:
            await alice.register("alice")
            await bob.register("bob")
            carol_id = await carol.do("register", user="carol", password=PASSWORD)
            room_id = await self._room_of(alice, bob)
            await alice.client.room_invite(room_id, carol_id)
            await carol.do("join_invited", room=room_id)
            await self._talk(alice, bob, carol, room_id)
            await self._profile_and_redaction(alice, carol, room_id)
            await self._history(alice, carol, room_id)
        finally:
            await cast.end()
            await alice.end()
            await bob.end()

    async def _talk(
        self, alice: NioClient, bob: NioClient, carol: ScriptedClient, room_id: str
    ) -> None:
        heard: list[str] = []
        for each in (alice, bob):
            each.client.add_event_callback(
                lambda room, event: heard.append(event.body), nio.RoomMessageText
            )
        event_id = await alice.send(room_id, "hello carol")
        seen = await carol.do("wait_message", room=room_id, body="hello carol")
        self.assertEqual(seen, {"event_id": event_id, "sender": "@alice:localhost"})
        answer_id = await carol.do("send", room=room_id, body="hello from javascript")
        await alice.until(lambda: heard.count("hello from javascript") == 2)
        await carol.do("read", room=room_id, event=event_id)
        receipts = alice.client.rooms[room_id].read_receipts
        await alice.until(
            lambda: (
                "@carol:localhost" in receipts and receipts["@carol:localhost"].event_id == event_id
            )
        )
        await bob.client.update_receipt_marker(room_id, answer_id)
        await carol.do("wait_read", room=room_id, event=answer_id, user="@bob:localhost")

    async def _profile_and_redaction(
        self, alice: NioClient, carol: ScriptedClient, room_id: str
    ) -> None:
        await carol.do("set_name", name="Carol of the Bells")
        await alice.until(
            lambda: (
                alice.client.rooms[room_id].user_name("@carol:localhost") == "Carol of the Bells"
            )
        )
        await alice.client.set_displayname("Alice L.")
        await carol.do("wait_name", room=room_id, user="@alice:localhost", name="Alice L.")
        event_id = await alice.send(room_id, "a slip of the tongue")
        await carol.do("wait_message", room=room_id, body="a slip of the tongue")
        await alice.client.room_redact(room_id, event_id)
        await carol.do("wait_redacted", room=room_id, event=event_id)

    async def _history(self, alice: NioClient, carol: ScriptedClient, room_id: str) -> None:
        for number in range(40):
            await alice.send(room_id, f"history {number}")
        await carol.do("wait_message", room=room_id, body="history 39")
        bodies = await carol.do("page_back", room=room_id, limit=15)
        history = [body for body in bodies if body.startswith("history")]
        self.assertEqual(history, [f"history {number}" for number in range(40)])
        self.assertIn("hello carol", bodies)
        self.assertNotIn("a slip of the tongue", bodies)
        page = await alice.client.room_messages(room_id, start="", limit=10)
        self.assertIsInstance(page, nio.RoomMessagesResponse)
        self.assertEqual(len(page.chunk), 10)
