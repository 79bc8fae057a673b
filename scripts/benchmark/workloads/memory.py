"""Memory of a fresh server: idle, with waiting clients, and over a long time of messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from scripts.benchmark.client import User
from scripts.benchmark.context import Context, register
from scripts.benchmark.phases import Phase, closed_loop, quantile, quiet
from scripts.benchmark.polling import Poller
from scripts.benchmark.receivers import FILTER
from scripts.benchmark.servers import Server, Synapse

_IDLE_S = 10
_ROOM_MEMBERS = 50
_POLL_MS = 120_000
_SETTLE_S = 5
_SENDERS = 50
_AT_ONCE = 10
_BEGINNING_PER_S = 200
"""Clients that begin to wait."""


async def run_idle(ctx: Context) -> None:
    """A server without users, and then with clients that wait for nothing."""
    server = await ctx.new_server()
    try:
        used = server.usage().total
        await asyncio.sleep(_IDLE_S)
        used = server.usage().total - used
        memory, database = server.memory()
        ctx.value("memory.idle_mb", "server without users", memory, "MB")
        if database:
            ctx.value("memory.idle_database_mb", "its database", database, "MB")
        ctx.value("memory.idle_cpu", "CPU without users", 60 * used / _IDLE_S, "s/minute")
        await _long_polls(ctx, server)
    finally:
        ctx.end(server)


async def _long_polls(ctx: Context, server: Server) -> None:
    sizes = ctx.sizes
    count = sizes.longpolls_synapse if ctx.kind == Synapse.kind else sizes.longpolls
    users = await register(server.client, "waiting", count)
    await _rooms(ctx, users, max(1, count // _ROOM_MEMBERS))
    async with _waiting(users) as begin:
        await quiet([server], 60)
        before = server.memory()[0]
        await begin()
        await asyncio.sleep(_SETTLE_S)
        await quiet([server], 60)
        after = server.memory()[0]
    ctx.note(
        f"{count:,} clients of {server.title} wait in `/sync`, each on a connection of its own and "
        f"in a room of {_ROOM_MEMBERS}."
    )
    ctx.value("memory.waiting_kb", "each waiting client", 1000 * (after - before) / count, "kB")
    ctx.value("memory.with_waiting_mb", "server with all of them", after, "MB", comparable=False)


async def _rooms(ctx: Context, users: Sequence[User], count: int) -> list[str]:
    """So many rooms; each user is in one of them."""
    rooms = [
        await users[number].create_room(ctx.sizes.room_version, name=f"Room {number}")
        for number in range(count)
    ]
    await closed_loop(
        8, len(users) - count, lambda at, _: users[count + at].join(rooms[(count + at) % count])
    )
    return rooms


@asynccontextmanager
async def _waiting(users: Sequence[User]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Clients that have synced, and wait in `/sync` again and again once they are told to begin.

    Raises at the end what one of them met.
    """
    found: dict[Poller, str] = {}
    failures: list[Exception] = []

    async def catch_up(number: int, _worker: int) -> None:
        user = users[number]
        filter_id = await user.filter_id(FILTER)
        since = await user.catch_up(filter_id)
        poller = Poller(user, filter_id, _POLL_MS, lambda answer: None, failures.append)
        found[poller] = since

    async def begin() -> None:
        # Not all at once: what a crowd costs for a moment is another question.
        for number, (poller, since) in enumerate(found.items()):
            poller.start(since)
            if not number % _AT_ONCE:
                await asyncio.sleep(_AT_ONCE / _BEGINNING_PER_S)

    await closed_loop(20, len(users), catch_up)
    try:
        yield begin
    finally:
        for poller in found:
            poller.close()
    if failures:
        raise failures[0]


async def run_soak(ctx: Context) -> None:
    """Many messages at a steady rate, to clients that wait for them."""
    sizes = ctx.sizes
    server = await ctx.new_server()
    try:
        users = await register(server.client, "soak", sizes.soak_clients)
        rooms = await _rooms(ctx, users, sizes.soak_rooms)
        async with _waiting(users) as begin:
            await begin()
            await asyncio.sleep(_SETTLE_S)
            await _Soak(ctx, server, users, rooms).run()
    finally:
        ctx.end(server)


class _Soak:
    def __init__(
        self, ctx: Context, server: Server, users: Sequence[User], rooms: Sequence[str]
    ) -> None:
        sizes = ctx.sizes
        self._ctx, self._server, self._users, self._rooms = ctx, server, users, rooms
        self._count = sizes.soak_events_synapse if ctx.kind == Synapse.kind else sizes.soak_events
        self._sampled = 0
        self._points: list[list[float]] = []

    async def run(self) -> None:
        ctx, sizes = self._ctx, self._ctx.sizes
        each = len(self._users) // len(self._rooms)
        ctx.note(
            f"{len(self._users)} clients that wait all the time, in {len(self._rooms)} rooms of "
            f"{each}; {sizes.soak_rate:g} messages a second, or as many as the server answers. "
            f"Memory and latencies are read every {sizes.soak_sample:,} messages."
        )
        title = f"a message, delivered to {each} clients"
        async with ctx.phase("soak", title, "message", servers=[self._server]) as phase:
            began = time.perf_counter()

            async def send(number: int, _worker: int) -> None:
                due = began + number / sizes.soak_rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                user = number % len(self._users)
                started = time.perf_counter()
                room = self._rooms[user % len(self._rooms)]
                await self._users[user].send(room, f"message {number}")
                phase.latencies.append(time.perf_counter() - started)
                if not len(phase.latencies) % sizes.soak_sample:
                    self._sample(phase)

            await closed_loop(_SENDERS, self._count, send)
        ctx.series["soak"] = self._points
        self._figures()

    def _sample(self, phase: Phase) -> None:
        ordered = sorted(phase.latencies[self._sampled :])
        self._sampled = len(phase.latencies)
        server, database = self._server.memory()
        p50, p99 = (1000 * quantile(ordered, at) for at in (0.5, 0.99))
        point = (self._sampled, server, database, p50, p99)
        self._points.append([round(value, 3) for value in point])

    def _figures(self) -> None:
        ctx, points = self._ctx, self._points
        if len(points) < 2:
            return
        ctx.note(f"{self._count:,} messages with {self._server.title}.")
        title = "memory of the server at the end"
        ctx.value("soak.end_mb", title, points[-1][1], "MB", comparable=False)
        later = [(point[0], point[1]) for point in points[len(points) // 2 :]]
        title = "growth of memory over the second half"
        growth = 10_000 * slope(later)
        ctx.value("soak.slope", title, growth, "MB/10,000 messages", comparable=False)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through points with the least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)
