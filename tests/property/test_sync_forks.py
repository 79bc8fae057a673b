"""Clients that follow `/sync` know what the server knows, in a room that other servers fork.

Events of other servers come on branches, late, and with gaps before them; they invite, kick and
ban users of this server, who do things as well. HEARTH_TEST_LONG is a number of games to play
instead of a few; HEARTH_TEST_SEED is the first one's seed, HEARTH_TEST_STEPS how long each is.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import TestCase

from tests.property.forked_room import ForkedRoom
from tests.property.forked_sync import Follower
from tests.support.federation import make_federation

GAMES = int(os.environ.get("HEARTH_TEST_LONG") or 6)
SEED = int(os.environ.get("HEARTH_TEST_SEED") or 1)
STEPS = int(os.environ.get("HEARTH_TEST_STEPS") or 60)

HABITS: list[dict[str, Any]] = [
    {"limit": 1},
    {"limit": 5},
    {"limit": 100},
    {"limit": 3, "lazy": True},
    {"limit": 4, "state_after": True},
    {"limit": 100, "types": ["m.room.message", "m.room.topic"]},
]


async def play(room: ForkedRoom) -> None:
    """One game."""
    rng = room.rng
    await room.start()
    clients = [Follower(user, **habits) for user in room.users for habits in HABITS]
    for _ in range(STEPS):
        await room.step()
        for client in rng.sample(clients, rng.choice([0, 0, 1, 4])):
            await client.sync(room, full_state=rng.random() < 0.05)
    for _ in range(1000):
        if room.late:
            await room.deliver()
    assert not room.late, room.late
    for client in clients:
        await client.sync(room)
        await client.check_history(room)


class SyncForksTest(TestCase):
    timeout = 24 * 3600 if "HEARTH_TEST_LONG" in os.environ else 300

    async def test_clients_know_what_the_server_knows(self) -> None:
        """Shows SYN-4, SYN-5, SYN-7, SYN-10, SYN-16, HV-1."""
        for seed in range(SEED, SEED + GAMES):
            # Of its own, because event IDs of version 2 are chosen, alike in all games.
            (server,) = await make_federation(self, 1)
            room = ForkedRoom(server, seed)
            try:
                await play(room)
            except Exception as problem:
                done = "\n".join(room.done[-int(os.environ.get("HEARTH_TEST_TRACE") or 12) :])
                raise AssertionError(f"seed {seed}:\n{done}\n{problem!r}") from problem
            await server.stop()
