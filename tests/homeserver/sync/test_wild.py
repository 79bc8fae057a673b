"""Answers from memory say what the database says, whatever happens in the rooms.

`HEARTH_TEST_SEEDS` names seeds to be tried, with commas between them, for a longer search.
"""

from __future__ import annotations

import os

from tests.homeserver.sync import test_caught_up as plain
from tests.homeserver.sync.sliding import test_caught_up as sliding
from tests.homeserver.sync.wild import WildCrowd

STEPS = 30


class WildTest(plain.EqualityTest):
    """Of `/sync`."""

    timeout = 3600
    crowd = WildCrowd

    async def test_random_1(self) -> None:
        await self.try_out(11)

    async def test_random_2(self) -> None:
        await self.try_out(12)

    async def test_random_3(self) -> None:
        for seed in os.environ.get("HEARTH_TEST_SEEDS", "13").split(","):
            rooms = len(self.rooms)
            await self.try_out(int(seed))
            del self.rooms[rooms:]

    async def try_out(self, seed: int) -> None:
        ways = await self.compare(seed, STEPS)
        self.assertGreater(ways["fast"], 10, ways)


class WildSlidingTest(sliding.EqualityTest):
    """Of sliding sync."""

    timeout = 3600
    crowd = WildCrowd
    test_random_1 = WildTest.test_random_1
    test_random_2 = WildTest.test_random_2
    test_random_3 = WildTest.test_random_3
    try_out = WildTest.try_out
