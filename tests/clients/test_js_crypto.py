"""matrix-js-sdk with its Rust crypto on a real server."""

from __future__ import annotations

import asyncio

from scripts.clients import JS
from tests.clients.scripted import PASSWORD, Cast, ClientCase, ScriptedClient, required
from tests.support.process import ServerProcess

ALICE, BOB = "@alice:localhost", "@bob:localhost"


class JsCryptoTest(ClientCase):
    async def test_key_backup_and_secret_storage_on_a_second_login(self) -> None:
        required(JS)
        await self.on_a_server(self._backup)

    async def test_verification_by_emoji(self) -> None:
        required(JS)
        await self.on_a_server(self._verification)

    async def test_a_dehydrated_device_keeps_keys_while_nobody_is_logged_in(self) -> None:
        required(JS)
        await self.on_a_server(self._dehydration)

    async def test_encrypted_threads(self) -> None:
        required(JS)
        await self.on_a_server(self._threads)

    async def _login(
        self, server: ServerProcess, cast: Cast, user: str, device: str
    ) -> ScriptedClient:
        client = await cast.js(server)
        await client.do("login", user=user, password=PASSWORD, device=device)
        return client

    async def _room(self, alice: ScriptedClient, bob: ScriptedClient) -> str:
        room: str = await alice.do("create_encrypted", name="Secrets", invite=[BOB])
        await bob.do("join_invited", room=room)
        await alice.do("wait_member", room=room, user=BOB)
        return room

    async def _backup(self, server: ServerProcess, cast: Cast) -> None:
        alice = await self._login(server, cast, "alice", "PHONE")
        bob = await self._login(server, cast, "bob", "PHONE")
        key = await alice.do("bootstrap", user="alice", password=PASSWORD)
        ready = await alice.do("ready")
        self.assertEqual(ready, {"cross_signing": True, "secret_storage": True, "backup": "1"})
        room = await self._room(alice, bob)
        await alice.do("send", room=room, body="the rabbit is late")
        await bob.do("wait_decrypted", room=room, body="the rabbit is late")
        await bob.do("send", room=room, body="how late?")
        heard = await alice.do("wait_decrypted", room=room, body="how late?")
        self.assertTrue(heard["encrypted"])
        self.assertEqual(await alice.do("wait_backed_up", keys=2), 2)
        await alice.do("stop")
        tablet = await self._login(server, cast, "alice", "TABLET")
        self.assertFalse(await tablet.do("device_verified", user=ALICE, device="TABLET"))
        self.assertEqual(await tablet.do("recover", key=key), 2)
        for body in ("the rabbit is late", "how late?"):
            await tablet.do("wait_decrypted", room=room, body=body)
        self.assertTrue(await tablet.do("device_verified", user=ALICE, device="TABLET"))
        self.assertTrue(await tablet.do("device_verified", user=ALICE, device="PHONE"))
        self.assertTrue((await tablet.do("ready"))["secret_storage"])

    async def _verification(self, server: ServerProcess, cast: Cast) -> None:
        phone = await self._login(server, cast, "alice", "PHONE")
        bob = await self._login(server, cast, "bob", "PHONE")
        await phone.do("bootstrap", user="alice", password=PASSWORD)
        await bob.do("bootstrap", user="bob", password=PASSWORD)
        room = await self._room(phone, bob)
        await phone.do("send", room=room, body="before")
        await bob.do("wait_decrypted", room=room, body="before")
        await phone.do("wait_backed_up", keys=1)
        tablet = await self._login(server, cast, "alice", "TABLET")
        await tablet.do("verify_own")
        await self._compare(tablet, phone)
        await phone.do("wait_device_verified", user=ALICE, device="TABLET")
        # The old device sends the new one the keys of the account and of the backup.
        await tablet.do("wait_backup_key")
        self.assertTrue((await tablet.do("ready"))["cross_signing"])
        await tablet.do("wait_decrypted", room=room, body="before")
        # Two users, in a room.
        await tablet.do("verify_user", user=BOB, room=room)
        await self._compare(tablet, bob)
        await bob.do("wait_user_verified", user=ALICE)
        # The other device of the one, and the other way round, know by the signatures.
        await phone.do("wait_user_verified", user=BOB)
        await bob.do("wait_device_verified", user=ALICE, device="TABLET")

    async def _compare(self, asking: ScriptedClient, asked: ScriptedClient) -> None:
        await asked.do("accept_request")
        await asking.do("start_sas")
        emoji = await asyncio.gather(asking.do("emoji"), asked.do("emoji"))
        self.assertEqual(emoji[0], emoji[1])
        self.assertEqual(len(emoji[0]), 7)
        await asyncio.gather(asking.do("confirm"), asked.do("confirm"))
        await asyncio.gather(asking.do("verified"), asked.do("verified"))

    async def _dehydration(self, server: ServerProcess, cast: Cast) -> None:
        phone = await self._login(server, cast, "alice", "PHONE")
        bob = await self._login(server, cast, "bob", "PHONE")
        self.assertTrue(await phone.do("can_dehydrate"))
        key = await phone.do("bootstrap", user="alice", password=PASSWORD)
        room = await self._room(phone, bob)
        await phone.do("dehydrate")
        await phone.do("logout")
        await bob.do("wait_without_device", user=ALICE, device="PHONE")
        await bob.do("send", room=room, body="while you were gone")
        tablet = await self._login(server, cast, "alice", "TABLET")
        await tablet.do("recover", key=key)
        await tablet.do("dehydrate")
        await tablet.do("wait_decrypted", room=room, body="while you were gone")

    async def _threads(self, server: ServerProcess, cast: Cast) -> None:
        alice = await self._login(server, cast, "alice", "PHONE")
        bob = await self._login(server, cast, "bob", "PHONE")
        key = await alice.do("bootstrap", user="alice", password=PASSWORD)
        room = await self._room(alice, bob)
        root = await alice.do("send", room=room, body="why is a raven")
        await bob.do("wait_decrypted", room=room, body="why is a raven")
        await bob.do("send_in_thread", room=room, root=root, body="like a writing desk?")
        await alice.do("wait_in_thread", room=room, root=root, bodies=["like a writing desk?"])
        await alice.do("send_in_thread", room=room, root=root, body="I have no idea")
        bodies = ["like a writing desk?", "I have no idea"]
        found = await bob.do("wait_in_thread", room=room, root=root, bodies=bodies)
        self.assertEqual(found, bodies)
        for number in range(25):
            await bob.do("send", room=room, body=f"aside {number}")
        await alice.do("wait_decrypted", room=room, body="aside 24")
        await alice.do("wait_backed_up", keys=2)
        # A device that starts with none of it in its timeline.
        tablet = await self._login(server, cast, "alice", "TABLET")
        await tablet.do("recover", key=key)
        found = await tablet.do("list_threads", room=room)
        self.assertEqual(found, [{"root": root, "length": 2}])
        found = await tablet.do("wait_in_thread", room=room, root=root, bodies=bodies)
        self.assertEqual(found, bodies)
