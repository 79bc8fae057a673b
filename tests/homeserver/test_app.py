"""The whole homeserver, put together."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.support.server import make_server


class WholeServerTest(TestCase):
    async def test_a_new_user_is_who_they_say(self) -> None:
        server = await make_server(self)
        alice = await server.register("alice")
        self.assertEqual(
            await alice.ok("GET", "/account/whoami"),
            {"user_id": "@alice:hearth.test", "device_id": alice.device_id, "is_guest": False},
        )

    async def test_two_users_meet_in_a_room(self) -> None:
        server = await make_server(self)
        alice, bob = await server.register("alice"), await server.register("bob")
        room_id = await alice.create_room(preset="private_chat", name="Tea")
        self.assertEqual((await bob.call("POST", f"/join/{room_id}", {})).status, 403)
        await alice.invite(room_id, bob.user_id)
        await bob.join(room_id)
        await bob.send(room_id, "hello")
        self.assertEqual(await bob.ok("GET", "/joined_rooms"), {"joined_rooms": [room_id]})
