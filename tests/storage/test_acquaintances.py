"""Rooms that are woken for a change of presence."""

from __future__ import annotations

from storage import acquaintances
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.server import make_server


@on_each_database
class RoomsBySizeTest(DatabaseTestCase):
    timeout = 60

    async def test_sizes(self) -> None:
        """Rooms above the bound are told apart; what is known is not counted again."""
        server = await make_server(
            self, database_url=self.database_url(), presence={"enabled": False}
        )
        alice, bob, carol = [await server.register(name) for name in ("alice", "bob", "carol")]
        small = await alice.create_room(preset="public_chat")
        large = await alice.create_room(preset="public_chat")
        await bob.create_room()
        for user, room_id in ((bob, small), (bob, large), (carol, large)):
            await user.join(room_id)
        db = server.homeserver.db
        users = [alice.user_id]
        found = await db.read(acquaintances.rooms_by_size, users, 2, {})
        self.assertEqual(sorted(found.values()), [False, True])
        swapped = {nid: not is_small for nid, is_small in found.items()}
        again = await db.read(acquaintances.rooms_by_size, users, 2, swapped)
        self.assertEqual(again, swapped)
        everything = await db.read(acquaintances.rooms_by_size, users, 3, {})
        self.assertEqual(set(everything.values()), {True})
        self.assertEqual(await db.read(acquaintances.rooms_by_size, ["@no:x"], 2, {}), {})
        await carol.leave(large)
        found = await db.read(acquaintances.rooms_by_size, users, 2, {})
        self.assertEqual(set(found.values()), {True})
