"""SIGKILL at the worst moments: what was acknowledged survives, and both sides agree in the end."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.databases import migrated_database
from tests.support.federation import Federation, eventually
from tests.support.network import Network, authority, ca_file, reactor
from tests.support.peer import Peer, PeerRoom, Received, make_peer
from tests.support.process import ServerProcess
from tests.support.services import free_port

TRANSACTIONS = 20
PER_TRANSACTION = 50


class CrashTest(TestCase):
    timeout = 180

    async def begin(self) -> None:
        directory = Path(self.mktemp()).resolve()
        url = migrated_database(self)
        port = free_port()
        self.name = f"localhost:{port}"
        federation = {"ca_files": [str(ca_file())], "allowed_ip_ranges": ["127.0.0.0/8"]}
        options = {
            "server_name": self.name,
            "database": {"url": url},
            "federation": federation,
        }
        self.server = server = ServerProcess(directory, options)
        certificate = authority().issue_cert("localhost")
        (directory / "c.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        (directory / "k.pem").write_bytes(certificate.private_key_pem.bytes())
        tls = {"certificate": str(directory / "c.pem"), "private_key": str(directory / "k.pem")}
        server.options["listeners"] = [
            {"port": server.port},
            {"port": server.own_port, "serves": ["metrics", "health"]},
            {"address": "127.0.0.1", "port": port, "serves": ["federation"], "tls": tls},
        ]
        self.addCleanup(server.kill)
        await deferToThread(server.start)
        self.peer: Peer = await make_peer(self, Federation([], Network()))
        auth = {"type": "m.login.dummy"}
        body = {"username": "alice", "password": "wonderland", "auth": auth}
        self.token = ""
        answer = await self.call("POST", "/register", body)
        if "access_token" not in answer:
            auth["session"] = answer["session"]
            answer = await self.call("POST", "/register", body)
        self.token = answer["access_token"]
        room = {"preset": "public_chat", "room_version": "10"}
        self.room_id = (await self.call("POST", "/createRoom", room))["room_id"]
        self.model: PeerRoom = await self.peer.join(self.name, self.room_id)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request of alice's client."""
        url = f"/_matrix/client/v3{path}"
        _, text = await deferToThread(self.server.request, method, url, body, self.token)
        return json.loads(text)

    async def persist(self, method: str, path: str, body: Any) -> Any:
        """The same for a client that asks again when the server is gone, once it is back."""
        while True:
            try:
                return await self.call(method, path, body)
            except (OSError, HTTPException):
                await self.restart()

    async def restart(self) -> None:
        """Start the server after a kill, if that has not happened yet."""
        if self.server.has_ended:
            await deferToThread(self.server.start)

    def kill_once(self, endpoint: str, *, after: bool) -> list[str]:
        """SIGKILL while the server waits for the peer's answer to a request, the first time.

        `after`: the peer has done what it was asked; the answer gets lost. Returns a list in
        which the kill is noted.
        """
        killed: list[str] = []

        def handler(request: Received) -> Any:
            usual = getattr(self.peer, f"answer_{endpoint}")
            if killed:
                return usual(request)
            killed.append(endpoint)
            answer = usual(request) if after else None
            self.server.kill()
            return answer

        self.peer.on[endpoint] = handler
        return killed

    async def members(self, room_id: str) -> dict[str, str]:
        """Memberships of a room, as alice's client sees them."""
        answer = await self.call("GET", f"/rooms/{quote(room_id)}/members")
        return {each["state_key"]: each["content"]["membership"] for each in answer["chunk"]}

    async def agree(self, model: PeerRoom) -> None:
        """Both have the same members, and what each says arrives at the other."""
        user = self.peer.user("mallory")
        await self.peer.sent(self.name, model.message(user, "from mallory"))
        path = f"/rooms/{quote(model.room_id)}/send/m.room.message/agreed"
        sent = await self.call("PUT", path, {"msgtype": "m.text", "body": "from alice"})
        await eventually(lambda: sent["event_id"] in model.events, within=60)
        mine = await self.members(model.room_id)
        state = ((key, model.events[name]) for key, name in model.state.items())
        theirs = {key[1]: event.membership for key, event in state if key[0] == "m.room.member"}
        self.assertEqual(mine, theirs)

    async def shown(self) -> list[str]:
        """Bodies of all messages of the room, oldest first."""
        found: list[str] = []
        token = ""
        while True:
            path = f"/rooms/{quote(self.room_id)}/messages?dir=f&limit=500{token}"
            answer = await self.call("GET", path)
            messages = [event for event in answer["chunk"] if event["type"] == "m.room.message"]
            found += (event["content"]["body"] for event in messages)
            if "end" not in answer:
                return found
            token = f"&from={answer['end']}"

    async def send(self, pdus: list[Any], txn_id: str) -> bool:
        """Whether a transaction was answered, all of it well."""
        try:
            status, answer = await self.peer.send(self.name, pdus, txn_id=txn_id)
        except Exception:
            return False
        if status != 200:
            return False
        self.assertEqual([each for each in answer["pdus"].values() if each], [])
        return True

    async def test_a_server_that_is_killed_while_it_is_sent_events(self) -> None:
        """Shows TXN-2: SIGKILL in the midst of a catch-up of 1,000 events, and start again."""
        await self.begin()
        user = self.peer.user("mallory")
        expected = [str(number) for number in range(TRANSACTIONS * PER_TRANSACTION)]
        events = [self.model.message(user, body) for body in expected]
        killing = None
        for number in range(TRANSACTIONS):
            part = events[number * PER_TRANSACTION : (number + 1) * PER_TRANSACTION]
            if number in (5, 12):
                killing = deferToThread(self.server.kill)
            while not await self.send(list(part), f"t{number}"):
                if killing is not None:
                    await killing
                    killing = None
                    await deferToThread(self.server.start)
            if killing is not None:
                # It was answered first.
                await killing
                killing = None
                await deferToThread(self.server.start)
        self.assertEqual(await self.shown(), expected)

    async def test_events_that_wait_when_the_server_is_killed(self) -> None:
        """Events that lacked others are completed after SIGKILL."""
        await self.begin()
        user = self.peer.user("mallory")
        expected = ["kept back", "last"]
        _, last = [self.model.message(user, body) for body in expected]
        # It asks for what is missing, and nobody answers.
        await self.peer.close()
        self.assertTrue(await self.send([last], "t"))
        await deferToThread(self.server.kill)
        self.peer.listen()
        await deferToThread(self.server.start)

        async def arrived() -> bool:
            return await self.shown() == expected

        await eventually(arrived, within=120)

    async def test_killed_while_entering_a_room_of_another_server(self) -> None:
        """Before the other server has the join, and after it: the client asks again."""
        await self.begin()
        for endpoint, after in (("make_join", False), ("send_join", False), ("send_join", True)):
            room = self.peer.create_room()
            killed = self.kill_once(endpoint, after=after)
            path = f"/join/{quote(room.room_id)}?server_name={quote(self.peer.name)}"
            answer = await self.persist("POST", path, {})
            self.assertEqual((killed, answer), ([endpoint], {"room_id": room.room_id}))
            await self.agree(room)

    async def test_killed_while_leaving_a_room_or_refusing_an_invite(self) -> None:
        await self.begin()
        for after in (False, True):
            room = self.peer.create_room()
            await self.peer.invite(self.name, room, f"@alice:{self.name}")
            killed = self.kill_once("send_leave", after=after)
            await self.persist("POST", f"/rooms/{quote(room.room_id)}/leave", {})
            self.assertEqual(killed, ["send_leave"])
            rooms = (await self.call("GET", "/sync?timeout=0"))["rooms"]
            self.assertNotIn(room.room_id, rooms.get("invite", {}))
            self.assertIn(f"@alice:{self.name}", room.members("leave"))

    async def test_killed_while_inviting_a_user_of_another_server(self) -> None:
        await self.begin()
        for number, after in enumerate((False, True)):
            invited = self.peer.user(f"guest{number}")
            killed = self.kill_once("invite", after=after)
            path = f"/rooms/{quote(self.room_id)}/invite"
            self.assertEqual(await self.persist("POST", path, {"user_id": invited}), {})
            self.assertEqual(killed, ["invite"])
            self.assertEqual((await self.members(self.room_id))[invited], "invite")
            await self.peer.join(self.name, self.room_id, f"guest{number}")
            self.assertEqual((await self.members(self.room_id))[invited], "join")
        await self.agree(self.model)

    async def test_killed_while_it_is_sent_an_invite_or_a_join(self) -> None:
        """At several moments of the work; the other server repeats its request."""
        await self.begin()
        alice = f"@alice:{self.name}"
        for pause in (0.002, 0.01, 0.03, 0.1):
            room = self.peer.create_room()
            await self._killed_after(pause, partial(self.peer.invite, self.name, room, alice))
            rooms = (await self.call("GET", "/sync?timeout=0"))["rooms"]
            self.assertIn(room.room_id, rooms["invite"])
            await self.call("POST", f"/join/{quote(room.room_id)}", {})
            await self.agree(room)
            user = f"late{pause}"
            await self._killed_after(pause, partial(self.peer.join, self.name, self.room_id, user))
            found = await self.members(self.room_id)
            self.assertEqual(found[self.peer.user(user)], "join")
        await self.agree(self.model)

    async def _killed_after(self, pause: float, ask: Callable[[], Awaitable[object]]) -> None:
        """Make a request, kill the server in the meantime, repeat until it was answered."""
        kill = deferLater(reactor, pause, self.server.kill)
        while True:
            try:
                await ask()
                break
            except Exception:
                await kill
                await self.restart()
        await kill
        await self.restart()
