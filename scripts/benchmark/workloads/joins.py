"""Joining: many users a room of this server, and one user a large room of another."""

from __future__ import annotations

import asyncio
import time

from scripts.benchmark.client import Refused, User, esc
from scripts.benchmark.context import Context
from scripts.benchmark.phases import closed_loop

_POLL_S = 0.25
_COMPLETE_TIMEOUT_S = 900


async def run(ctx: Context) -> None:
    """Measure both; each round has rooms of its own."""
    await _local(ctx)
    await _remote(ctx)


async def _local(ctx: Context) -> None:
    users = await ctx.users(ctx.sizes.local_joins + 1)
    room = await users[0].create_room(ctx.sizes.room_version, name="Growing")
    title = f"a local room, {len(users) - 1:,} users"
    ctx.note("Ten users at a time join the local room.")
    async with ctx.phase("joins.local", title, "join") as phase:
        await closed_loop(
            10, len(users) - 1, lambda number, _: users[number + 1].join(room), phase=phase
        )


async def _remote(ctx: Context) -> None:
    sizes = ctx.sizes
    user = (await ctx.users(1))[0]
    room, last = await asyncio.to_thread(
        ctx.residents.room, sizes.remote_members, sizes.room_version
    )
    title = f"a remote room of {sizes.remote_members:,} members"
    ctx.note(
        f"The large room has users of {sizes.remote_servers} other servers, all played by one "
        "process whose CPU does not count. The join is over when the server knows all members."
    )
    async with ctx.phase("joins.remote", title, "join", rate=False) as phase:
        began = time.perf_counter()
        with phase.timed():
            await user.join(room, ctx.residents.first)
        await user.send(room, "hello")
        sendable = time.perf_counter() - began
        await _knows(user, room, last)
        complete = time.perf_counter() - began
    joined = (await user.call("GET", f"/rooms/{esc(room)}/joined_members"))["joined"]
    if len(joined) != sizes.remote_members + 1:
        raise RuntimeError(f"{len(joined)} members of {sizes.remote_members + 1}")
    ctx.value("joins.sendable_s", f"{title}, until the first message is sent", sendable, "s")
    ctx.value("joins.complete_s", f"{title}, until all members are known", complete, "s")
    await user.call("POST", f"/rooms/{esc(room)}/leave", {})


async def _knows(user: User, room: str, member: str) -> None:
    """Wait until the server knows a member. Raises TimeoutError."""
    path = f"/rooms/{esc(room)}/state/m.room.member/{esc(member)}"
    async with asyncio.timeout(_COMPLETE_TIMEOUT_S):
        while True:
            try:
                await user.call("GET", path)
            except Refused as refused:
                if refused.status not in (403, 404):
                    raise
                await asyncio.sleep(_POLL_S)
            else:
                return
