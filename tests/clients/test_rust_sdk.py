"""The Rust SDK, as Element X uses it, on a real server: sliding sync, timelines, encryption."""

from __future__ import annotations

import asyncio

from scripts.clients import RUST
from tests.clients.scripted import PASSWORD, Cast, ClientCase, ScriptedClient, required
from tests.support.process import ServerProcess


class RustSdkTest(ClientCase):
    async def test_room_list_timeline_and_sending(self) -> None:
        required(RUST)
        await self.on_a_server(self._rooms)

    async def test_a_long_room_list_over_a_restart(self) -> None:
        required(RUST)
        await self.on_a_server(self._long_list)

    async def test_encryption_on_a_second_device(self) -> None:
        required(RUST)
        await self.on_a_server(self._encrypted)

    async def _login(
        self, server: ServerProcess, cast: Cast, user: str, device: str
    ) -> ScriptedClient:
        client = await cast.rust(server, user, device)
        await client.do("login", password=PASSWORD)
        return client

    async def _rooms(self, server: ServerProcess, cast: Cast) -> None:
        alice = await self._login(server, cast, "alice", "PHONE")
        self.assertEqual(await alice.do("sliding_sync"), "NATIVE")
        rooms = {
            name: await alice.do("create_room", name=name, invite=[], encrypted=False)
            for name in ("Tea", "Croquet", "Tarts")
        }
        await alice.do("wait_list", names=["Tarts", "Croquet", "Tea"])
        await alice.do("send", room=rooms["Croquet"], body="off with it")
        # What has the newest message comes first.
        await alice.do("wait_list", names=["Croquet", "Tarts", "Tea"])
        shared = await alice.do(
            "create_room", name="Caucus", invite=["@bob:localhost"], encrypted=False
        )
        bob = await self._login(server, cast, "bob", "PHONE")
        await bob.do("join", room=shared)
        await bob.do("open", room=shared)
        for number in range(45):
            await alice.do("send", room=shared, body=f"lap {number}")
        self.assertEqual(
            await bob.do("wait_message", room=shared, body="lap 44"), "@alice:localhost"
        )
        await bob.do("page_back", room=shared, count=10)
        found = await bob.do("bodies", room=shared)
        if len(found) != 45:
            await asyncio.sleep(1)
            for x in await bob.do("ids", room=shared):
                print(x)
            print(
                server.request("GET", f"/_matrix/client/v3/rooms/{shared}/messages?dir=b&limit=100")
            )
        self.assertEqual(found, [f"lap {number}" for number in range(45)])
        await self._respond(alice, bob, shared)

    async def _long_list(self, server: ServerProcess, cast: Cast) -> None:
        bob = await self._login(server, cast, "bob", "PHONE")
        phone = await self._login(server, cast, "alice", "PHONE")
        rooms = [
            await phone.do(
                "create_room", name=f"Room {n}", invite=["@bob:localhost"], encrypted=False
            )
            for n in range(50)
        ]
        for room in rooms[:3]:
            await bob.do("join", room=room)
        # A device for which all is new. Joins of others move no room.
        alice = await self._login(server, cast, "alice", "TABLET")
        names = [f"Room {n}" for n in range(49, -1, -1)]
        await alice.do("wait_list", names=names[:20])
        await alice.do("more", count=50)
        await alice.do("wait_list", names=names)
        await bob.do("send", room=rooms[1], body="up")
        await alice.do("wait_list", names=["Room 1", "Room 49", "Room 48"])
        await alice.do("wait_unread", room=rooms[1], count=1)
        self.assertEqual(server.stop(), 0)
        server.start()
        await bob.do("send", room=rooms[0], body="after the restart")
        await alice.do("wait_list", names=["Room 0", "Room 1", "Room 49", "Room 48"])
        await alice.do("wait_message", room=rooms[0], body="after the restart")
        await alice.do("open", room=rooms[1])
        await alice.do("wait_message", room=rooms[1], body="up")
        await alice.do("mark_read", room=rooms[1])
        await alice.do("wait_unread", room=rooms[1], count=0)
        await alice.do("leave", room=rooms[0])
        await alice.do("wait_list", names=["Room 1", "Room 49", "Room 48"])

    async def _respond(self, alice: ScriptedClient, bob: ScriptedClient, room: str) -> None:
        event = await bob.do("send", room=room, body="who has won?")
        await alice.do("wait_message", room=room, body="who has won?")
        await alice.do("react", room=room, event=event, key="🦤")
        await bob.do("wait_reaction", room=room, event=event, key="🦤")
        await alice.do("reply", room=room, event=event, body="everybody")
        await bob.do("wait_message", room=room, body="everybody")

    async def _encrypted(self, server: ServerProcess, cast: Cast) -> None:
        alice = await self._login(server, cast, "alice", "PHONE")
        bob = await self._login(server, cast, "bob", "PHONE")
        key = await alice.do("enable_recovery")
        room = await alice.do(
            "create_room", name="Secrets", invite=["@bob:localhost"], encrypted=True
        )
        await bob.do("join", room=room)
        await bob.do("open", room=room)
        await alice.do("send", room=room, body="the hatter is mad")
        await bob.do("wait_message", room=room, body="the hatter is mad")
        await bob.do("send", room=room, body="so are we all")
        await alice.do("wait_message", room=room, body="so are we all")
        tablet = await self._login(server, cast, "alice", "TABLET")
        await tablet.do("recover", key=key)
        await tablet.do("wait_verified")
        # Messages from before the login, by the key backup; and new ones, by keys sent to it.
        await tablet.do("open", room=room)
        await tablet.do("wait_message", room=room, body="the hatter is mad")
        await tablet.do("wait_message", room=room, body="so are we all")
        await bob.do("send", room=room, body="welcome to the tablet")
        await tablet.do("wait_message", room=room, body="welcome to the tablet")
        await tablet.do("send", room=room, body="from the tablet")
        await bob.do("wait_message", room=room, body="from the tablet")
        await alice.do("wait_message", room=room, body="from the tablet")
