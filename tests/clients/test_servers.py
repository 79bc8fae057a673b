"""Clients of three kinds on two servers, in one encrypted room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from scripts.clients import JS, NIO, RUST
from tests.clients.scripted import PASSWORD, Cast, ClientCase, ScriptedClient, required
from tests.support.federated_process import FederatedProcess
from tests.support.process import ServerProcess


def federated(directory: Path) -> FederatedProcess:
    """A server whose name is its own address."""
    server = FederatedProcess(directory, "", {})
    server.name = f"localhost:{server.federation_port}"
    server.options["server_name"] = server.name
    return server


class ServersTest(ClientCase):
    async def test_encrypted_chat_over_federation(self) -> None:
        for variable in (NIO, RUST, JS):
            required(variable)
        directory = Path(self.mktemp()).resolve()
        near, far = federated(directory / "near"), federated(directory / "far")
        await self.on_servers([near, far], lambda cast: self._chat(near, far, cast))

    async def test_what_was_said_while_a_server_was_down(self) -> None:
        for variable in (RUST, JS):
            required(variable)
        directory = Path(self.mktemp()).resolve()
        near, far = federated(directory / "near"), federated(directory / "far")
        await self.on_servers([near, far], lambda cast: self._outage(near, far, cast))

    async def _outage(self, near: FederatedProcess, far: FederatedProcess, cast: Cast) -> None:
        alice = await cast.rust(near, "alice", "RUST")
        bob = await cast.js(far)
        await alice.do("login", password=PASSWORD)
        await bob.do("login", user="bob", password=PASSWORD, device="JS")
        bob_id = f"@bob:{far.name}"
        room = await alice.do("create_room", name="Tea", invite=[bob_id], encrypted=True)
        await bob.do("join_invited", room=room)
        await alice.do("wait_member", room=room, user=bob_id)
        await self._each_speaks(room, {"alice": alice, "bob": bob}, "hello")
        far.kill()
        # Keys that have to wait for the server as the messages do.
        await alice.do("change_key", room=room)
        said = []
        for number in range(3):
            said.append(f"lap {number}")
            await alice.do("send", room=room, body=said[-1])
        # And a device that bob's server has never heard of.
        tablet = await cast.rust(near, "alice", "TABLET")
        await tablet.do("login", password=PASSWORD)
        await tablet.do("open", room=room)
        far.start()
        # What bob's server sends makes the other one try again.
        await bob.do("send_until_it_goes", room=room, body="is anybody there?")
        await alice.do("wait_decrypted", room=room, body="is anybody there?")
        await bob.do("wait_device", user=f"@alice:{near.name}", device="TABLET")
        await bob.do("send", room=room, body="I am back")
        for client in (alice, tablet):
            await client.do("wait_decrypted", room=room, body="I am back")
        for body in said:
            await bob.do("wait_decrypted", room=room, body=body)

    async def test_a_key_backup_goes_from_one_kind_of_client_to_another(self) -> None:
        for variable in (RUST, JS):
            required(variable)
        await self.on_a_server(self._backups)

    async def _backups(self, server: ServerProcess, cast: Cast) -> None:
        alice = await cast.js(server)
        await alice.do("login", user="alice", password=PASSWORD, device="JS")
        key = await alice.do("bootstrap", user="alice", password=PASSWORD)
        bob = await cast.rust(server, "bob", "RUST")
        await bob.do("login", password=PASSWORD)
        recovery = await bob.do("enable_recovery")
        room = await alice.do("create_encrypted", name="Tea", invite=["@bob:localhost"])
        await bob.do("join", room=room)
        await alice.do("wait_member", room=room, user="@bob:localhost")
        await self._each_speaks(room, {"alice": alice, "bob": bob}, "hello")
        await alice.do("wait_backed_up", keys=2)
        later = await cast.rust(server, "alice", "RUST")
        await later.do("login", password=PASSWORD)
        await later.do("recover", key=key)
        await later.do("wait_verified")
        await later.do("open", room=room)
        other = await cast.js(server)
        await other.do("login", user="bob", password=PASSWORD, device="JS")
        await other.do("recover", key=recovery)
        for name in ("alice", "bob"):
            await later.do("wait_decrypted", room=room, body=f"hello from {name}")
            await other.do("wait_decrypted", room=room, body=f"hello from {name}")
        await alice.do("wait_device_verified", user="@alice:localhost", device="RUST")
        self.assertTrue(await other.do("device_verified", user="@bob:localhost", device="JS"))

    async def test_threads_of_another_kind_of_client(self) -> None:
        for variable in (RUST, JS):
            required(variable)
        await self.on_a_server(self._threads)

    async def _threads(self, server: ServerProcess, cast: Cast) -> None:
        alice = await cast.js(server)
        await alice.do("login", user="alice", password=PASSWORD, device="JS")
        bob = await cast.rust(server, "bob", "RUST")
        await bob.do("login", password=PASSWORD)
        room = await alice.do("create_encrypted", name="Tea", invite=["@bob:localhost"])
        await bob.do("join", room=room)
        await alice.do("wait_member", room=room, user="@bob:localhost")
        await bob.do("open", room=room)
        roots = []
        for name in ("raven", "writing desk"):
            roots.append(await alice.do("send", room=room, body=name))
            for number in range(3):
                body = f"{name} {number}"
                await alice.do("send_in_thread", room=room, root=roots[-1], body=body)
        for root in roots:
            await bob.do("wait_thread", room=room, root=root, length=3)
        found = await bob.do("threads", room=room)
        self.assertEqual(found, [{"root": root, "length": 3} for root in reversed(roots)])
        # The SDK follows a thread by itself when something in it notifies the user.
        await bob.do("wait_following", room=room, root=roots[0], follow=True)
        later = await cast.rust(server, "bob", "LATER")
        await later.do("login", password=PASSWORD)
        await later.do("wait_following", room=room, root=roots[0], follow=True)
        await later.do("follow_thread", room=room, root=roots[0], follow=False)
        await bob.do("wait_following", room=room, root=roots[0], follow=False)
        await bob.do("wait_following", room=room, root=roots[1], follow=True)

    async def _chat(self, near: FederatedProcess, far: FederatedProcess, cast: Cast) -> None:
        alice = await cast.rust(near, "alice", "RUST")
        bob = await cast.js(far)
        nio = await cast.nio(far, "alice", "NIO")
        await alice.do("login", password=PASSWORD)
        await bob.do("login", user="bob", password=PASSWORD, device="JS")
        await nio.do("login", password=PASSWORD)
        users = {
            f"@alice:{near.name}": ["RUST"],
            f"@bob:{far.name}": ["JS"],
            f"@alice:{far.name}": ["NIO"],
        }
        room = await alice.do("create_room", name="Caucus", invite=list(users)[1:], encrypted=True)
        await bob.do("join_invited", room=room)
        await nio.do("join", room=room)
        for user in users:
            await bob.do("wait_member", room=room, user=user)
            await alice.do("wait_member", room=room, user=user)
        await nio.do("load_members", room=room)
        await nio.do("wait_devices", room=room, devices=users)
        everybody = {"alice": alice, "bob": bob, "nio": nio}
        await self._each_speaks(room, everybody, "hello")
        # A device that comes later, on the other server than most of those who write to it.
        tablet = await cast.rust(near, "alice", "TABLET")
        await tablet.do("login", password=PASSWORD)
        await tablet.do("open", room=room)
        users[f"@alice:{near.name}"].append("TABLET")
        await nio.do("wait_devices", room=room, devices=users)
        await bob.do("wait_device", user=f"@alice:{near.name}", device="TABLET")
        await self._each_speaks(room, everybody | {"tablet": tablet}, "again")

    async def _each_speaks(self, room: str, clients: dict[str, ScriptedClient], text: str) -> None:
        """Everybody sends a message, which all others can read."""
        for name, client in clients.items():
            body = f"{text} from {name}"
            await client.do("send", room=room, body=body)
            others: list[Any] = [
                other.do("wait_decrypted", room=room, body=body)
                for other in clients.values()
                if other is not client
            ]
            await asyncio.gather(*others)
