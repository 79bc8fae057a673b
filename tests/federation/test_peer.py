"""The scripted peer: it keeps to the protocol unless told not to."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from federation.client.keyring import Keyring
from homeserver.core.signing import KnownKey, verify_event
from tests.support.events import ALL_VERSIONS
from tests.support.federation import Federation, make_federation
from tests.support.network import Network
from tests.support.peer import Reply, make_peer


class PeerTest(TestCase):
    async def test_keys(self) -> None:
        (hearth,) = federation = await make_federation(self, 1)
        peer = await make_peer(self, federation)
        keyring = hearth.homeserver.services[Keyring]
        key = await keyring.key_for_request(peer.name, peer.key.key_id)
        assert key is not None
        self.assertEqual(bytes(key.verify_key), bytes(peer.key.verify_key))
        self.assertEqual([request.name for request in peer.requests], ["keys"])

    async def test_rooms_of_two_peers(self) -> None:
        federation = Federation([], Network())
        one, two = await make_peer(self, federation), await make_peer(self, federation)
        for version in ALL_VERSIONS:
            theirs = one.create_room(version)
            first = theirs.message(one.user())
            ours = await two.join(one.name, theirs.room_id, "bob")
            self.assertEqual(ours.state, theirs.state)
            self.assertEqual(ours.servers(), {one.name, two.name})
            self.assertNotIn(first.event_id, ours.events)
            second = ours.message(two.user("bob"))
            await two.sent(one.name, second)
            self.assertEqual(theirs.heads, [second.event_id])
            key = KnownKey(two.key.verify_key, two.now() + 3600_000)
            verify_event(second.pdu, second.version, two.name, {two.key.key_id: key}, two.now())
            status, answer = await two.get(
                one.name, "/v1/backfill/{}", theirs.room_id, v=second.event_id, limit="3"
            )
            self.assertEqual(status, 200)
            found = [ours.event_of(pdu).event_id for pdu in answer["pdus"]]
            self.assertEqual(found[0], second.event_id)
            self.assertEqual(found[2], first.event_id)

    async def test_scripts(self) -> None:
        federation = Federation([], Network())
        one, two = await make_peer(self, federation), await make_peer(self, federation)
        one.on["version"] = lambda request: Reply(b"rubbish", 418)
        self.assertEqual(await two.get(one.name, "/v1/version"), (418, b"rubbish"))
        one.on["version"] = lambda request: Reply(iter([b"[1", b",2]"]), pause=0.01)
        self.assertEqual(await two.get(one.name, "/v1/version"), (200, [1, 2]))
        one.on["version"] = lambda request: None
        self.assertEqual((await two.get(one.name, "/v1/version"))[0], 404)
        federation.cut(two, one)
        with self.assertRaises(Exception):  # noqa: B017
            await two.get(one.name, "/v1/version")
