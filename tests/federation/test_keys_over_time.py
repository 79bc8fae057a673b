"""Signing keys that change, and clocks that do not agree, between servers that share rooms."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.trial.unittest import TestCase

from federation.client.keyring import Pauses
from homeserver.core.signing import (
    SigningKey,
    format_signing_keys,
    generate_signing_key,
    parse_signing_keys,
    sign_json,
)
from homeserver.core.types import JsonObject
from homeserver.startup import SIGNING_KEY_FILE
from storage import events
from storage.transaction import Transaction
from tests.federation.key_servers import HOUR
from tests.federation.server.scene import Scene
from tests.support.federation import (
    FederatedServer,
    Federation,
    add_server,
    eventually,
    make_federation,
)
from tests.support.peer import Received
from tests.support.room_state import state_of
from tests.support.server import TestServer, User


def keys_of(server: FederatedServer) -> list[SigningKey]:
    """The keys in a server's file, the one to sign with first."""
    path = server.homeserver.config.data_directory / SIGNING_KEY_FILE
    return parse_signing_keys(path.read_text())


async def rotate(server: FederatedServer, now_ms: int) -> None:
    """Stop the server, put a new key before the old one, which is retired, and start again."""
    old, *older = keys_of(server)
    new = generate_signing_key(f"new{len(older)}", bytes([len(older) + 1]) * 32)
    await server.stop()
    path = server.homeserver.config.data_directory / SIGNING_KEY_FILE
    path.write_text(format_signing_keys([new, replace(old, expired_ts=now_ms), *older]))
    await server.start()


def _signers(txn: Transaction, event_id: str) -> set[str]:
    row = events.get(txn, event_id)
    assert row is not None
    signatures = json.loads(row.json)["signatures"]
    return {key for keys in signatures.values() for key in keys}


class RotationTest(TestCase):
    timeout = 120

    async def test_a_server_that_changes_its_key(self) -> None:
        """Shows KEY-15: those who know the old key go on with the new one; newcomers believe
        events that were signed with the old one before it was retired."""
        # Keys are asked for again at the earliest half a minute after the last time.
        self.patch(Pauses, "AFTER_SUCCESS", 500)
        servers = await make_federation(self, 2)
        alice, bob = await servers[0].register("alice"), await servers[1].register("bob")
        for version in ("4", "10"):
            await self._change_in_a_room(servers, alice, bob, version)

    async def _change_in_a_room(
        self, servers: Federation, alice: User, bob: User, version: str
    ) -> None:
        one = servers[0]
        room_id = await alice.create_room(preset="public_chat", room_version=version)
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": one.name})
        before = await alice.send(room_id, "with the old key")
        old = keys_of(one)[0].key_id
        await rotate(one, int(one.homeserver.reactor.seconds() * 1000))
        alice.server.client = one.client
        new = keys_of(one)[0].key_id
        after = await alice.send(room_id, "with the new key")
        reply = await bob.send(room_id, "heard")
        said = {before, after, reply}

        async def shown(user: User) -> bool:
            path = f"/rooms/{room_id}/messages"
            found = await user.ok("GET", path, query={"dir": "b", "limit": 100})
            return said <= {event["event_id"] for event in found["chunk"]}

        for user in (alice, bob):
            await eventually(partial(shown, user), within=30)
        # New servers join by way of each of the two, and check the whole history.
        for via in servers[:2]:
            third = await add_server(self, servers)
            carol = await third.register("carol")
            await carol.ok("POST", f"/join/{room_id}", {}, query={"via": via.name})
            await eventually(partial(shown, carol), within=30)
            self.assertEqual(await third.homeserver.db.read(_signers, before), {old})
            self.assertEqual(await third.homeserver.db.read(_signers, after), {new})
            # The first hears of the newcomer from whom it joined by.
            await eventually(partial(self._is_alike, third, one, room_id))

    async def _is_alike(self, one: TestServer, other: TestServer, room_id: str) -> bool:
        self.assertEqual(await state_of(one, room_id), await state_of(other, room_id))
        return True


class ClockTest(Scene):
    """The peer says that its key is valid until some time that is not far from now."""

    def publish(self, valid_for_ms: int) -> None:
        def answer(request: Received) -> JsonObject:
            published: Any = self.peer.answer_keys(request)
            published.pop("signatures")
            published["valid_until_ts"] = self.peer.now() + valid_for_ms
            return sign_json(published, self.peer.name, self.peer.key)

        self.peer.on["keys"] = answer

    async def test_a_peer_whose_clock_is_fast(self) -> None:
        """An hour fast: its key lives longer, and its events are of the future."""
        await self.begin()
        self.peer.clock_offset_ms = HOUR
        room_id = await self.room()
        model = await self.peer.join(self.hearth.name, room_id)
        model.clock_offset_ms = HOUR
        await self.peer.sent(self.hearth.name, model.message(self.mallory, "from the future"))

    async def test_a_peer_whose_clock_is_slow(self) -> None:
        """An hour slow, and its keys are published for a day: nothing is lost."""
        await self.begin()
        self.peer.clock_offset_ms = -HOUR
        room_id = await self.room()
        model = await self.peer.join(self.hearth.name, room_id)
        model.clock_offset_ms = -HOUR
        await self.peer.sent(self.hearth.name, model.message(self.mallory, "from the past"))

    async def test_a_key_that_is_valid_for_an_hour(self) -> None:
        await self.begin()
        self.publish(HOUR)
        room_id = await self.room()
        model = await self.peer.join(self.hearth.name, room_id)
        await self.peer.sent(self.hearth.name, model.message(self.mallory, "in time"))

    async def test_a_key_that_ran_out_an_hour_ago(self) -> None:
        """Shows KEY-9: its requests are refused, until the server publishes anew."""
        await self.begin()
        self.publish(-HOUR)
        room_id = await self.room()
        status, answer = await self.make(room_id)
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        self.assertEqual(len(self.peer.received("keys")), 1)
