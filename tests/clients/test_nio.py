"""matrix-nio with encryption on real servers: devices, key sharing, rooms of two servers."""

from __future__ import annotations

from typing import Any

from scripts.clients import NIO
from tests.clients.scripted import PASSWORD, Cast, ClientCase, ScriptedClient, required
from tests.support.process import ServerProcess


class NioTest(ClientCase):
    async def test_encrypted_chat_of_several_devices(self) -> None:
        required(NIO)
        await self.on_a_server(self._chat)

    async def _login(
        self, server: ServerProcess, cast: Cast, user: str, device: str
    ) -> ScriptedClient:
        client = await cast.nio(server, user, device)
        await client.do("login", password=PASSWORD)
        return client

    async def _chat(self, server: ServerProcess, cast: Cast) -> None:
        phone = await self._login(server, cast, "alice", "PHONE")
        bob = await self._login(server, cast, "bob", "LAPTOP")
        room = await phone.do("create_room", name="Secrets", invite=["@bob:localhost"])
        await bob.do("join", room=room)
        devices = {"@alice:localhost": ["PHONE"], "@bob:localhost": ["LAPTOP"]}
        for client in (phone, bob):
            await self._know(client, room, devices)
        old = await phone.do("send", room=room, body="to the laptop")
        heard = await bob.do("wait_message", room=room, body="to the laptop")
        self.assertEqual(heard, {"sender": "@alice:localhost", "decrypted": True})
        await bob.do("send", room=room, body="to the phone")
        await phone.do("wait_message", room=room, body="to the phone")
        tablet = await self._login(server, cast, "alice", "TABLET")
        devices["@alice:localhost"] = ["PHONE", "TABLET"]
        for client in (phone, bob, tablet):
            await self._know(client, room, devices)
        await bob.do("send", room=room, body="to all devices")
        for client in (phone, tablet):
            heard = await client.do("wait_message", room=room, body="to all devices")
            self.assertEqual(heard, {"sender": "@bob:localhost", "decrypted": True})
        await tablet.do("send", room=room, body="from the tablet")
        for client in (phone, bob):
            await client.do("wait_message", room=room, body="from the tablet")
        await self._share(phone, tablet, room, old)

    async def _share(
        self, phone: ScriptedClient, tablet: ScriptedClient, room: str, event: str
    ) -> None:
        """The new device asks the old one for a key from before its time."""
        await tablet.do("trust", user="@alice:localhost", device="PHONE")
        await tablet.do("request_key", room=room, event=event)
        await phone.do("share_key", device="TABLET")
        heard = await tablet.do("wait_message", room=room, body="to the laptop")
        self.assertEqual(heard, {"sender": "@alice:localhost", "decrypted": True})

    async def _know(self, client: Any, room: str, devices: dict[str, list[str]]) -> None:
        await client.do("load_members", room=room)
        await client.do("wait_devices", room=room, devices=devices)
