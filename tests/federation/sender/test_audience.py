"""Which servers get which events: joins, kicks, revoked invites."""

from __future__ import annotations

from tests.federation.sender.outside import HERE, World
from tests.support.databases import DatabaseTestCase, on_each_database

ONE, TWO = "one.example", "two.example"


@on_each_database
class AudienceTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.world = World(self, await self.open())
        self.others = self.world.others

    async def test_a_join_through_this_server_goes_to_the_others(self) -> None:
        """Shows FJ-9."""
        await self.world.room(1, ONE)
        await self.world.start()
        user = f"@u:{TWO}"
        await self.world.say(1, "before")
        await self.world.settle()
        await self.world.member(1, user, "join", sender=user)
        await self.world.say(1, "after")
        await self.world.settle()
        self.assertEqual(self.others.pdus(ONE), ["before", f"join {user}", "after"])
        self.assertEqual(self.others.pdus(TWO), ["after"])

    async def test_newcomers_get_nothing_from_before_when_all_is_read_at_once(self) -> None:
        """Shows FJ-9."""
        await self.world.room(1, ONE)
        await self.world.start()
        await self.world.stop()
        user = f"@u:{TWO}"
        await self.world.say(1, "before")
        await self.world.member(1, user, "join", sender=user)
        await self.world.say(1, "during")
        await self.world.member(1, user, "leave", "join", sender=user)
        await self.world.say(1, "after")
        await self.world.start()
        all_five = ["before", f"join {user}", "during", f"leave {user}", "after"]
        self.assertEqual(self.others.pdus(ONE), all_five)
        self.assertEqual(self.others.pdus(TWO), ["during"])

    async def test_the_last_user_of_a_server_is_kicked(self) -> None:
        """Shows FJ-16."""
        await self.world.room(1, ONE, TWO)
        await self.world.start()
        user = f"@u:{TWO}"
        await self.world.member(1, user, "leave", "join")
        await self.world.settle()
        await self.world.say(1, "after")
        await self.world.settle()
        self.assertEqual(self.others.pdus(TWO), [f"leave {user}"])
        self.assertEqual(self.others.pdus(ONE), [f"leave {user}", "after"])

    async def test_a_revoked_invite_reaches_the_invited(self) -> None:
        """Shows FJ-16."""
        await self.world.room(1, ONE)
        await self.world.start()
        user = f"@u:{TWO}"
        await self.world.member(1, user, "invite")
        await self.world.settle()
        self.assertEqual(self.others.pdus(TWO), [])
        await self.world.member(1, user, "leave", "invite")
        await self.world.settle()
        self.assertEqual(self.others.pdus(TWO), [f"leave {user}"])

    async def test_a_revoked_invite_reaches_a_server_that_was_down(self) -> None:
        """Shows FJ-16, TXN-4."""
        await self.world.room(1, ONE)
        await self.world.room(2, TWO)
        await self.world.start()
        user = f"@u:{TWO}"
        self.others.down.add(TWO)
        await self.world.say(2, "hello")
        await self.world.pass_time(2 * 3600, step=30)
        await self.world.member(1, user, "invite")
        await self.world.member(1, user, "leave", "invite")
        await self.world.pass_time(30, step=5)
        await self.world.stop()
        self.others.down.clear()
        sender = await self.world.start()
        sender.heard_from(TWO)
        await self.world.pass_time(30, step=5)
        self.assertEqual(self.others.pdus(TWO), [f"leave {user}", "hello"])
        left = await self.world.db.read(
            lambda txn: txn.value("SELECT COUNT(*) FROM destination_events")
        )
        self.assertEqual(left, 0)

    async def test_a_ban_in_the_queue_of_a_server_that_goes_down(self) -> None:
        """Shows FJ-16."""
        await self.world.room(1, ONE, TWO)
        await self.world.start()
        user = f"@u:{TWO}"
        self.others.down.add(TWO)
        await self.world.say(1, "hello")
        await self.world.settle()
        await self.world.member(1, user, "ban", "join")
        await self.world.pass_time(2 * 3600, step=30)
        self.world.kill()
        self.others.down.clear()
        sender = await self.world.start()
        sender.heard_from(TWO)
        await self.world.pass_time(30, step=5)
        self.assertEqual(self.others.pdus(TWO), [f"ban {user}"])

    async def test_a_state_key_that_is_no_user_harms_nothing(self) -> None:
        await self.world.room(1, ONE)
        await self.world.start()
        for odd in ("nobody", "@a:", f"@a:{HERE}", "@a:not a server"):
            content = {"membership": "leave", "body": odd}
            await self.world.say(1, "", type="m.room.member", state_key=odd, content=content)
        await self.world.settle()
        self.assertEqual(len(self.others.pdus(ONE)), 4)
        self.assertEqual({sent.destination for sent in self.others.attempts}, {ONE})
