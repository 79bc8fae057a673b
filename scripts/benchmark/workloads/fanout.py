"""One sender, and many clients of the same room that wait in `/sync`."""

from __future__ import annotations

import time

from scripts.benchmark.client import User
from scripts.benchmark.context import Context
from scripts.benchmark.phases import closed_loop
from scripts.benchmark.receivers import Receivers


async def receivers_room(ctx: Context) -> tuple[list[User], str]:
    """A room of the sender, who is the first, and the receivers."""
    users = await ctx.users(ctx.sizes.receivers + 1)
    room = await users[0].create_room(ctx.sizes.room_version, name="Fan-out")
    await closed_loop(5, len(users) - 1, lambda number, _: users[number + 1].join(room))
    return users, room


async def run(ctx: Context) -> None:
    """Measure single messages, then bursts of them."""
    sizes = ctx.sizes
    users, room = await ctx.fixture(receivers_room)
    sender, receivers = users[0], Receivers(users[1:], room)

    async def deliver(body: str) -> list[float]:
        receivers.expect([body])
        began = time.perf_counter()
        await sender.send(room, body)
        await receivers.received()
        return [arrived - began for arrived in receivers.arrivals[body].values()]

    async def burst(name: str) -> int:
        bodies = [f"{name} {number}" for number in range(sizes.fanout_burst)]
        receivers.expect(bodies)
        for body in bodies:
            await sender.send(room, body)
        await receivers.received()
        return len(bodies) * (len(users) - 1)

    waiting = f"to {len(users) - 1:,} waiting clients"
    try:
        await receivers.start()
        for number in range(3):
            await deliver(f"warm-up {number}")
        async with ctx.phase("fanout.paced", f"one message {waiting}", "delivery") as phase:
            began, number = time.perf_counter(), 0
            while number < sizes.fanout_paced or time.perf_counter() - began < sizes.least_s:
                phase.latencies += await deliver(f"paced {number}")
                number += 1
        title = f"bursts of {sizes.fanout_burst} {waiting}"
        async with ctx.phase("fanout.burst", title, "delivery") as phase:
            began, number = time.perf_counter(), 0
            while not number or time.perf_counter() - began < sizes.least_s:
                phase.operations += await burst(f"burst {number}")
                number += 1
    finally:
        await receivers.stop()
