"""Reading a long room backwards, page by page."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from scripts.benchmark.client import User, esc
from scripts.benchmark.context import Context
from scripts.benchmark.phases import Phase, closed_loop

_WRITERS = 20


async def long_room(ctx: Context) -> tuple[User, str]:
    """A reader, and a room in which many have written."""
    users = await ctx.users(_WRITERS)
    room = await users[0].create_room(ctx.sizes.room_version, name="Long")
    await closed_loop(5, len(users) - 1, lambda number, _: users[number + 1].join(room))
    await closed_loop(
        _WRITERS,
        ctx.sizes.history,
        lambda number, worker: users[worker].send(room, f"history {number}"),
    )
    return users[1], room


async def read_back(user: User, room: str, page: int, wanted: int, phase: Phase | None) -> int:
    """Read so many events, or all that there are; how many."""
    query = {"dir": "b", "limit": str(page)}
    events = 0
    while events < wanted:
        path = f"/rooms/{esc(room)}/messages?{urlencode(query)}"
        began = time.perf_counter()
        answer = await user.call("GET", path)
        if phase is not None:
            phase.latencies.append(time.perf_counter() - began)
        events += len(answer["chunk"])
        if "end" not in answer:
            break
        query["from"] = answer["end"]
    return events


async def run(ctx: Context) -> None:
    """Measure passes through the whole room."""
    sizes = ctx.sizes
    reader, room = await ctx.fixture(long_room)
    ctx.note(
        f"A room of {sizes.history} messages, {sizes.history_page} to a page; CPU is given for an "
        "event, latencies for a page."
    )
    async with ctx.phase("messages", "history", "event") as phase:
        began = time.perf_counter()
        while not phase.operations or time.perf_counter() - began < sizes.least_s:
            events = await read_back(reader, room, sizes.history_page, sizes.history, phase)
            if events < sizes.history:
                raise RuntimeError(f"read {events} events of {sizes.history}")
            phase.operations += events
