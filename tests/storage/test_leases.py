"""Leases, on both databases."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import Clock

from storage import leases
from storage.errors import DatabaseUnavailable
from storage.leases import LeaseKeeper
from tests.support.databases import DatabaseTestCase, on_each_database


@on_each_database
class LeaseTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()

    async def claim(self, names: list[str], owner: str, now: int) -> set[str]:
        return await self.db.write(leases.claim, names, owner, now, 100)

    async def test_a_free_lease_is_claimed_once(self) -> None:
        self.assertEqual(await self.claim(["x", "y", "x"], "a", 1000), {"x", "y"})
        self.assertEqual(await self.claim(["y", "z"], "b", 1050), {"z"})
        self.assertEqual(await self.db.read(leases.owner_of, "y", 1050), "a")
        self.assertIsNone(await self.db.read(leases.owner_of, "other", 1050))
        self.assertEqual(await self.claim([], "a", 1000), set())

    async def test_the_owner_may_claim_again(self) -> None:
        await self.claim(["x"], "a", 1000)
        self.assertEqual(await self.claim(["x"], "a", 1090), {"x"})
        self.assertEqual(await self.claim(["x"], "b", 1150), set())

    async def test_a_lease_that_ran_out_is_anybodys(self) -> None:
        await self.claim(["x"], "a", 1000)
        self.assertEqual(await self.claim(["x"], "b", 1099), set())
        self.assertIsNone(await self.db.read(leases.owner_of, "x", 1100))
        self.assertEqual(await self.claim(["x"], "b", 1100), {"x"})
        self.assertEqual(await self.db.write(leases.renew, ["x"], "a", 1110, 100), set())
        self.assertFalse(await self.db.write(leases.holds, "x", "a"))
        self.assertTrue(await self.db.write(leases.holds, "x", "b"))

    async def test_renewing_extends(self) -> None:
        await self.claim(["x", "y"], "a", 1000)
        self.assertEqual(await self.db.write(leases.renew, ["x", "z"], "a", 1090, 100), {"x"})
        self.assertEqual(await self.claim(["x", "y"], "b", 1150), {"y"})

    async def test_releasing_frees_own_leases_only(self) -> None:
        await self.claim(["x", "y"], "a", 1000)
        await self.claim(["z"], "b", 1000)
        await self.db.write(leases.release, ["x", "z"], "a")
        self.assertEqual(await self.claim(["x", "y", "z"], "c", 1010), {"x"})
        await self.db.write(leases.release_all, "a")
        self.assertEqual(await self.claim(["y", "z"], "c", 1010), {"y"})

    async def test_of_many_who_claim_together_one_gets_it(self) -> None:
        owners = [f"owner {i}" for i in range(12)]
        for now in (1000, 2000):  # new names, then names that ran out
            names = [f"n{i}" for i in range(8)]
            claims = await gatherResults(
                [
                    ensureDeferred(self.claim(names[i % 3 :] + names[: i % 3], owner, now))
                    for i, owner in enumerate(owners)
                ]
            )
            got = sorted(name for claim in claims for name in claim)
            self.assertEqual(got, names)


@on_each_database
class LeaseKeeperTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.clock = Clock()
        self.clock.advance(1000)
        self.lost: list[str] = []
        self.keeper = LeaseKeeper(self.db, self.clock, "a", self.lost.append, duration=30_000)
        self.addCleanup(lambda: ensureDeferred(self.keeper.stop()))

    async def others_claim(self) -> set[str]:
        now = int(self.clock.seconds() * 1000)
        return await self.db.write(leases.claim, ["x", "y"], "b", now, 30_000)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settled(self.db)

    async def test_leases_are_renewed_until_they_are_released(self) -> None:
        self.assertEqual(await self.keeper.claim(["x", "y"]), {"x", "y"})
        for _ in range(10):
            await self.pass_time(10)
        self.assertEqual(self.keeper.held, {"x", "y"})
        self.assertEqual(await self.others_claim(), set())
        await self.keeper.release(["x"])
        self.assertEqual(await self.others_claim(), {"x"})
        await self.keeper.stop()
        self.assertEqual(await self.others_claim(), {"x", "y"})
        self.assertEqual(self.lost, [])

    async def test_a_lease_taken_by_another_is_told(self) -> None:
        await self.keeper.claim(["x"])
        await self.db.write(leases.release, ["x"], "a")
        await self.others_claim()
        while not self.lost:
            await self.pass_time(10)
        self.assertEqual(self.lost, ["x"])
        self.assertEqual(self.keeper.held, set())

    async def test_a_lease_that_cannot_be_renewed_is_lost_at_its_end(self) -> None:
        async def away(*args: object) -> None:
            raise DatabaseUnavailable("simulated")

        await self.keeper.claim(["x"])
        self.patch(self.db, "write", away)
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.lost, [])
        self.assertEqual(self.keeper.held, {"x"})
        self.clock.advance(10)
        self.assertEqual(self.lost, ["x"])
        self.assertEqual(self.keeper.held, set())
        self.patch(self.db, "write", type(self.db).write.__get__(self.db))
