"""Two servers of one kind: how long messages take, and a burst; and transactions of many events."""

from __future__ import annotations

import asyncio
import time

from scripts.benchmark.client import User, esc
from scripts.benchmark.context import Context
from scripts.benchmark.phases import Phase, closed_loop, quiet
from scripts.benchmark.receivers import Receivers
from scripts.benchmark.servers import Hearth, Server

_PATIENCE_S = 15
_PARALLEL = 10


async def second_server(ctx: Context) -> tuple[Server, User]:
    """Another server of the kind, with a user."""
    server = await ctx.new_server()
    return server, await server.client.register("remote")


async def run(ctx: Context) -> None:
    """Measure all three."""
    await _two_servers(ctx)
    await _transactions(ctx)


async def _two_servers(ctx: Context) -> None:
    sizes = ctx.sizes
    first = await ctx.server()
    second, receiver = await ctx.fixture(second_server)
    sender = (await ctx.users(1))[0]
    room = await sender.create_room(sizes.room_version, name="Federated")
    await receiver.join(room, first.name)
    receivers = Receivers([receiver], room)
    both = [first, second]

    async def deliver(body: str, phase: Phase | None = None) -> None:
        receivers.expect([body])
        began = time.perf_counter()
        await sender.send(room, body)
        await receivers.received()
        if phase is not None:
            phase.latencies.append(receivers.arrivals[body][0] - began)

    try:
        await receivers.start()
        for number in range(3):
            await deliver(f"warm-up {number}")
        ctx.note(
            "Of messages the CPU time of both servers counts. A burst comes from "
            f"{_PARALLEL} clients at once."
        )
        title = "to a waiting client of another server"
        async with ctx.phase(
            "federation.paced", title, "message", servers=both, rate=False
        ) as phase:
            for number in range(sizes.federation_paced):
                await deliver(f"paced {number}", phase)
        bodies = [f"burst {number}" for number in range(sizes.federation_burst)]
        receivers.expect(bodies)
        title = f"a burst of {len(bodies)}"
        async with ctx.phase("federation.burst", title, "message", servers=both) as phase:
            await closed_loop(
                _PARALLEL, len(bodies), lambda number, _: sender.send(room, bodies[number])
            )
            missing = await receivers.received_or_still(_PATIENCE_S)
            phase.operations = len(bodies) - missing
        title = f"messages of the burst not delivered {_PATIENCE_S} s after the last one"
        ctx.value("federation.missing", title, missing, "")
    finally:
        await receivers.stop()


async def _transactions(ctx: Context) -> None:
    """Many events at a time, of a server that is played."""
    sizes = ctx.sizes
    server = await ctx.server()
    user = (await ctx.users(1))[0]
    size = sizes.transaction_events
    room, _ = await asyncio.to_thread(ctx.residents.room, 100, sizes.room_version)
    await user.join(room, ctx.residents.first)
    await user.send(room, "hello")
    title = f"transactions of {size} events"
    for count in (2, sizes.transactions):  # The first are to warm up.
        await asyncio.to_thread(ctx.residents.prepare, room, count, size)
        if count == sizes.transactions:
            async with ctx.phase("federation.transactions", title, "event", rate=False) as phase:
                await _receive(ctx, server, count, phase)
                phase.operations = count * size
        else:
            await _receive(ctx, server, count, None)
        await _until_last(user, room, f"message {count * size - 1}")
    if ctx.kind == Hearth.kind:
        # Synapse answers before it has taken them in, and drops what comes too fast.
        await _stream(ctx, server, user, room)
    await user.call("POST", f"/rooms/{esc(room)}/leave", {})


async def _stream(ctx: Context, server: Server, user: User, room: str) -> None:
    """Transactions without a pause between them: what each costs a server that is busy."""
    # Another number than before: the last message tells that these have come.
    count, size = ctx.sizes.transactions + 1, ctx.sizes.transaction_events
    await asyncio.to_thread(ctx.residents.prepare, room, count, size)
    title = f"the same, one right after the other (by {server.title} alone)"
    async with ctx.phase("federation.stream", title, "event") as phase:
        for _ in range(count):
            phase.latencies.append(await asyncio.to_thread(ctx.residents.send, server.name))
        phase.operations = count * size
    await _until_last(user, room, f"message {count * size - 1}")


async def _receive(ctx: Context, server: Server, count: int, phase: Phase | None) -> None:
    for _ in range(count):
        seconds = await asyncio.to_thread(ctx.residents.send, server.name)
        if phase is not None:
            phase.latencies.append(seconds)
        # Some servers answer before they have taken the events in.
        await quiet([server])


async def _until_last(user: User, room: str, body: str) -> None:
    path = f"/rooms/{esc(room)}/messages?dir=b&limit=1"
    async with asyncio.timeout(60):
        while (await user.call("GET", path))["chunk"][0]["content"].get("body") != body:
            await asyncio.sleep(0.25)
