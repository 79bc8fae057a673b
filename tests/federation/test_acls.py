"""Servers that a room's access control list denies."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.support.federation import eventually, make_federation
from tests.support.peer import make_peer


class DeniedServerTest(TestCase):
    async def test_denied_servers_still_receive(self) -> None:
        """What they say is not taken. Shows ACL-3, ACL-4."""
        federation = await make_federation(self, 1)
        (hearth,) = federation
        peer = await make_peer(self, federation)
        alice = await hearth.register("alice")
        room_id = await alice.create_room(preset="public_chat")
        room = await peer.join(hearth.name, room_id)
        acl = {"allow": ["*"], "deny": ["localhost"], "allow_ip_literals": True}
        await alice.set_state(room_id, "m.room.server_acl", acl)
        said = await alice.send(room_id, "to all")
        await eventually(lambda: said in {room.event_of(pdu).event_id for pdu in peer.pdus})
        event = room.message(peer.user(), "from the denied")
        status, answer = await peer.send(hearth.name, [event])
        self.assertEqual(status, 200)
        self.assertIn("error", answer["pdus"][event.event_id])
        status, _ = await alice.call("GET", f"/rooms/{room_id}/event/{event.event_id}")
        self.assertEqual(status, 404)
