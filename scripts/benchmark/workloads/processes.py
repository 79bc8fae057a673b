"""Sends over many rooms by one process of Hearth, and by two that share everything."""

from __future__ import annotations

from functools import partial

from scripts.benchmark.client import Client
from scripts.benchmark.context import Context, register
from scripts.benchmark.phases import Phase, closed_loop
from scripts.benchmark.servers import Server
from scripts.benchmark.several import SeveralProcesses

_WARM_UP = 4
"""Messages to each room before it counts."""


async def run(ctx: Context) -> None:
    """Measure one, and then two; on SQLite there can only be one."""
    if not ctx.postgres:
        ctx.note("SQLite serves one process only.")
        return
    ctx.note(
        "Each client keeps a connection, which the kernel gives to one of the processes; they need "
        "Redis, whose CPU time is with the database's. Where the machine has no cores for all of "
        "server, database and load generator, the rate cannot double, and CPU time tells more."
    )
    one = await _sends(ctx, 1)
    two = await _sends(ctx, 2)
    ratio = _rate(two) / _rate(one)
    ctx.value("processes.rate", "messages a second, two processes by one", ratio, "times")
    ratio = _cpu(two) / _cpu(one)
    ctx.value("processes.cpu", "CPU time of a message, two processes by one", ratio, "times")
    # What each process spends on its messages is what bounds it on a core of its own.
    ratio = 2 * _server(one) / _server(two)
    title = "messages that two processes could send on a core each, by one"
    ctx.value("processes.bound", title, ratio, "times")


async def _sends(ctx: Context, count: int) -> Phase:
    """Messages of many senders in rooms of their own, to so many processes."""
    several = partial(SeveralProcesses, count=count)
    server = await ctx.new_server(several if count > 1 else None)
    try:
        return await _measure(ctx, server, count)
    finally:
        ctx.end(server)


async def _measure(ctx: Context, server: Server, count: int) -> Phase:
    sizes = ctx.sizes
    users = await register(server.client, "sender", sizes.process_senders)
    for user in users:
        # A connection of one's own, as real clients have: it stays with one process.
        user.client = Client(server.client_port)
    rooms = [await user.create_room(sizes.room_version) for user in users]

    async def send(number: int, worker: int) -> None:
        await users[worker].send(rooms[worker], f"message {number}")

    await closed_loop(len(users), _WARM_UP * len(users), send)
    of = "one process" if count == 1 else f"{count} processes"
    name, title = f"processes.{count}", f"{len(users)} senders in rooms of their own, {of}"
    async with ctx.phase(name, title, "message", servers=[server]) as phase:
        await closed_loop(len(users), sizes.send_many, send, phase=phase, least_s=2 * sizes.least_s)
    for user in users:
        user.client.close()
    return phase


def _rate(phase: Phase) -> float:
    document = phase.document()
    return float(document["operations"] / document["wall_s"])


def _server(phase: Phase) -> float:
    """CPU seconds of the server for one message."""
    document = phase.document()
    return float(document["server_cpu_s"] / document["operations"])


def _cpu(phase: Phase) -> float:
    """CPU seconds of server and database for one message."""
    document = phase.document()
    used = document["server_cpu_s"] + document["database_cpu_s"]
    return float(used / document["operations"])
