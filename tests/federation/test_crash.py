"""What another server was told to have arrived survives SIGKILL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.databases import migrated_database
from tests.support.federation import Federation, eventually
from tests.support.network import Network, authority, ca_file, free_port
from tests.support.peer import Peer, PeerRoom, make_peer
from tests.support.process import ServerProcess

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
