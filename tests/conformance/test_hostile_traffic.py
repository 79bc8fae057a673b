"""A peer that floods, repeats, lies about keys and time, or stalls its connections."""

from __future__ import annotations

import copy
import itertools
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from homeserver.core.signing import generate_signing_key, sign_json
from homeserver.core.types import JsonObject
from tests.conformance.hostile_peer import HostilePeerCase
from tests.support.federation import eventually
from tests.support.network import authority
from tests.support.peer import Peer, Received, Reply, make_peer

HOUR_MS = 3600 * 1000
OTHER_KEY = generate_signing_key("peer", b"another key of no server at all.")


class TrafficTest(HostilePeerCase):
    async def test_floods_of_edus(self) -> None:
        """Shows TXN-7: EDUs for unknown rooms and users, of unknown types, and malformed."""
        receipt = {"m.read": {self.mallory: {"data": {"ts": 1}, "event_ids": ["$x"]}}}
        device = {"user_id": "@x:y", "device_id": "D", "stream_id": 1}
        message = {"sender": "@x:y", "type": "t", "message_id": "m", "messages": {}}
        contents: dict[str, JsonObject] = {
            "m.typing": {"room_id": "!x:y", "user_id": self.mallory, "typing": True},
            "m.receipt": {"!x:y": receipt},
            "m.presence": {"push": [{"user_id": "@x:y", "presence": "online"}]},
            "m.device_list_update": device,
            "m.direct_to_device": message,
            "m.signing_key_update": {"user_id": "@x:y"},
            "org.example.unknown": {"x": "y" * 1000},
        }
        kinds = [{"edu_type": kind, "content": content} for kind, content in contents.items()]
        for number in range(30):
            edus: list[JsonObject] = []
            for index in range(100):
                edu: Any = copy.deepcopy(kinds[index % len(kinds)])
                if edu["edu_type"] == "m.typing":
                    edu["content"]["room_id"] = f"!unknown{number}-{index}:localhost"
                edus.append(edu)
            status, answer = await self.peer.send(self.hearth.name, edus=edus)
            self.assertEqual(status, 200, answer)
        await self.unharmed()

    async def test_malformed_edus(self) -> None:
        kinds = (
            "m.typing", "m.receipt", "m.presence", "m.direct_to_device", "m.device_list_update",
            "m.signing_key_update", "", None, 5,
        )  # fmt: skip
        contents: tuple[Any, ...] = (
            None, 5, [], {}, {"room_id": 5}, {"room_id": self.room_id, "user_id": 5},
            {"room_id": self.room_id, "user_id": self.alice.user_id, "typing": True},
            {"push": 5}, {"push": [None]},
            {"push": [{"user_id": self.alice.user_id, "presence": "x"}]},
            {self.room_id: {"m.read": {self.alice.user_id: {"event_ids": ["$x"]}}}},
            {self.room_id: 5}, {self.room_id: {"m.read": {self.mallory: {"event_ids": 5}}}},
            {"sender": self.alice.user_id, "type": "t", "message_id": "m",
             "messages": {self.alice.user_id: {"*": {"forged": True}}}},
            {"sender": self.mallory, "type": 5, "message_id": "m" * 1000, "messages": {"x": 5}},
            {"user_id": self.alice.user_id, "device_id": "D", "stream_id": "x", "prev_id": 5},
            {"user_id": self.mallory, "device_id": "D" * 70000, "stream_id": 2**70},
        )  # fmt: skip
        await self.alice.sync()
        for kind in kinds:
            edus: list[Any] = [{"edu_type": kind, "content": content} for content in contents]
            edus += [None, 5, {}]
            status, answer = await self.peer.send(self.hearth.name, edus=edus)
            self.assertEqual(status, 200, answer)
        answer = await self.alice.sync()
        self.assertEqual(answer.get("to_device", {}).get("events", []), [])
        await self.unharmed()

    async def test_replays(self) -> None:
        """Shows TXN-2, TXN-6: a transaction again and again is worked on once, with one answer."""
        event = self.said("once")
        first = await self.peer.send(self.hearth.name, [event], txn_id="again")
        for _ in range(5):
            self.assertEqual(await self.peer.send(self.hearth.name, [event], txn_id="again"), first)
        for _ in range(5):
            status, answer = await self.peer.send(self.hearth.name, [event])
            self.assertEqual((status, answer["pdus"]), (200, {event.event_id: {}}))
        together = [
            Deferred.fromCoroutine(self.peer.send(self.hearth.name, [event], txn_id="together"))
            for _ in range(8)
        ]
        answers = await gatherResults(together)
        self.assertTrue(all(answer == answers[0] for answer in answers), answers)
        self.assertEqual((await self.timeline()).count(event.event_id), 1)
        # The same ID with other contents: answered as before, and not taken.
        other = self.said("smuggled")
        self.assertEqual(await self.peer.send(self.hearth.name, [other], txn_id="again"), first)
        self.assertFalse(await self.has(other))
        await self.unharmed()

    async def test_clock_an_hour_off(self) -> None:
        """The peer's time is its own affair."""
        for offset in (HOUR_MS, -HOUR_MS):
            self.room.clock_offset_ms = self.peer.clock_offset_ms = offset
            event = self.said(f"off by {offset}")
            await self.peer.sent(self.hearth.name, event)
            self.assertTrue(await self.has(event))
            self.assertEqual((await self.timeline())[0], event.event_id)
        self.room.clock_offset_ms = self.peer.clock_offset_ms = 0
        await self.unharmed()

    async def test_times_far_away(self) -> None:
        for ts in (0, 2**53 - 1, 10**14):
            event = self.said(f"at {ts}", ts=ts)
            status, answer = await self.peer.send(self.hearth.name, [event])
            self.assertEqual(status, 200, answer)
        await self.unharmed()

    async def test_stalled_connections(self) -> None:
        """Slow-loris clients: many half-sent requests keep nobody else waiting."""

        def stall() -> list[Any]:
            context = ssl.create_default_context(cadata=authority().cert_pem.bytes().decode())
            held = []
            for _ in range(30):
                raw = socket.create_connection(("127.0.0.1", self.hearth.port), 10)
                wrapped = context.wrap_socket(raw, server_hostname="localhost")
                wrapped.sendall(b"PUT /_matrix/federation/v1/send/x HTTP/1.1\r\nHost: x\r\nX: ")
                held.append(wrapped)
            return held

        held = await deferToThread(stall)
        try:
            await self.unharmed()
        finally:
            for connection in held:
                connection.close()

    async def test_forbidden_reads(self) -> None:
        """Shows BF-4: a server that is not in the room learns nothing, whatever it asks for."""
        secret = await self.alice.create_room(preset="private_chat", room_version="10")
        event_id = await self.alice.send(secret, "secret")
        asks: list[Any] = [
            self.peer.get(self.hearth.name, "/v1/event/{}", event_id),
            self.peer.get(self.hearth.name, "/v1/state/{}", secret, event_id=event_id),
            self.peer.get(self.hearth.name, "/v1/state_ids/{}", secret, event_id=event_id),
            self.peer.get(self.hearth.name, "/v1/event_auth/{}/{}", secret, event_id),
            self.peer.get(self.hearth.name, "/v1/backfill/{}", secret, v=event_id, limit="10"),
            self.peer.get(self.hearth.name, "/v1/make_join/{}/{}", secret, self.mallory, ver="10"),
            # Through the room that it is in.
            self.peer.get(self.hearth.name, "/v1/state/{}", self.room_id, event_id=event_id),
            self.peer.get(
                self.hearth.name, "/v1/backfill/{}", self.room_id, v=event_id, limit="10"
            ),
        ]
        for ask in asks:
            status, answer = await ask
            self.assertLess(status, 500, answer)
            self.assertNotIn("secret", str(answer))
            self.assertTrue(status in (403, 404) or answer.get("pdus") == [], (status, answer))
        await self.unharmed()


class KeyServersTest(HostilePeerCase):
    """A second peer whose keys are not what they should be speaks to Hearth."""

    async def liar(self, change: Any) -> Peer:
        """A peer whose key answer is changed before it is signed."""
        other = await make_peer(self, self.federation)

        def keys(request: Received) -> Any:
            answer: Any = other.answer_keys(request)
            del answer["signatures"]
            changed = change(other, answer)
            return (
                changed if isinstance(changed, Reply) else sign_json(changed, other.name, other.key)
            )

        other.on["keys"] = keys
        return other

    async def _is_not_believed(self, change: Any) -> None:
        other = await self.liar(change)
        status, _ = await other.get(
            self.hearth.name, "/v1/make_join/{}/{}", self.room_id, other.user(), ver="10"
        )
        self.assertEqual(status, 401)
        # Events that claim to be its own are refused as well.
        forged = self.room.make(
            "m.room.message", {}, other.user(), signer=other.name, key=other.key
        )
        await self.refused(forged)
        await self.unharmed()

    async def test_keys_of_another_server(self) -> None:
        await self._is_not_believed(lambda other, answer: {**answer, "server_name": self.peer.name})

    async def test_another_key(self) -> None:
        def change(other: Peer, answer: JsonObject) -> JsonObject:
            key = {"key": OTHER_KEY.public_base64}
            return {**answer, "verify_keys": {other.key.key_id: key}}

        await self._is_not_believed(change)

    async def test_unsigned(self) -> None:
        await self._is_not_believed(lambda other, answer: Reply(answer))

    async def test_expired(self) -> None:
        await self._is_not_believed(lambda other, answer: {**answer, "valid_until_ts": 1})

    async def test_rubbish(self) -> None:
        answers: tuple[Any, ...] = (
            b"", b"[]", b"{", {}, {"verify_keys": 5}, {"verify_keys": {"x": 5}},
            {"verify_keys": {"ed25519:peer": {"key": "****"}}}, {"valid_until_ts": "x"},
        )  # fmt: skip
        for wrong in answers:
            if isinstance(wrong, dict):
                await self._is_not_believed(lambda other, answer, wrong=wrong: {**answer, **wrong}
                                            if wrong else Reply({}))  # fmt: skip
            else:
                await self._is_not_believed(lambda other, answer, wrong=wrong: Reply(wrong))

    async def test_endless_keys(self) -> None:
        def keys() -> Iterator[bytes]:
            yield b'{"verify_keys":{'
            for number in itertools.count():
                yield b'"ed25519:%d":{"key":"%s"},' % (number, b"x" * 65536)

        await self._is_not_believed(lambda other, answer: Reply(keys()))

    async def test_key_servers_that_do_not_answer(self) -> None:
        """Events of a server whose keys cannot be had delay nobody else's."""
        other = await self.liar(lambda other, answer: Reply(hang=True))
        forged = self.room.make(
            "m.room.message", {}, other.user(), signer=other.name, key=other.key
        )
        sending = Deferred.fromCoroutine(self.peer.send(self.hearth.name, [forged]))
        await eventually(lambda: other.received("keys"))
        said = await self.alice.send(self.room_id, "meanwhile")
        self.assertTrue(await self.has(said))
        await other.stop()
        await sending
        self.assertFalse(await self.has(forged))
        await self.unharmed(patience=60)
