"""Sending messages: one after the other, many into one room, many into as many rooms."""

from __future__ import annotations

from scripts.benchmark.client import User
from scripts.benchmark.context import Context
from scripts.benchmark.phases import closed_loop


async def shared_room(ctx: Context) -> tuple[list[User], str]:
    """One room with all senders in it."""
    users = await ctx.users(ctx.sizes.senders)
    room = await users[0].create_room(ctx.sizes.room_version, name="Shared")
    await closed_loop(5, len(users) - 1, lambda number, _: users[number + 1].join(room))
    return users, room


async def own_rooms(ctx: Context) -> tuple[list[User], list[str]]:
    """A room for each sender, who is alone in it."""
    users = await ctx.users(ctx.sizes.senders)
    rooms = [""] * len(users)

    async def create(number: int, _worker: int) -> None:
        rooms[number] = await users[number].create_room(ctx.sizes.room_version)

    await closed_loop(5, len(users), create)
    return users, rooms


async def run(ctx: Context) -> None:
    """Measure all three."""
    sizes = ctx.sizes
    users, rooms = await ctx.fixture(own_rooms)
    _, shared = await ctx.fixture(shared_room)
    await closed_loop(1, 20, lambda number, _: users[0].send(rooms[0], f"warm-up {number}"))
    async with ctx.phase("send.one", "one sender", "message") as phase:
        await closed_loop(
            1,
            sizes.send_one,
            lambda number, _: users[0].send(rooms[0], f"message {number}"),
            phase=phase,
            least_s=sizes.least_s,
        )
    title = f"{len(users)} senders in one room"
    async with ctx.phase("send.shared_room", title, "message") as phase:
        await closed_loop(
            len(users),
            sizes.send_many,
            lambda number, worker: users[worker].send(shared, f"message {number}"),
            phase=phase,
            least_s=sizes.least_s,
        )
    title = f"{len(users)} senders in rooms of their own"
    async with ctx.phase("send.own_rooms", title, "message") as phase:
        await closed_loop(
            len(users),
            sizes.send_many,
            lambda number, worker: users[worker].send(rooms[worker], f"message {number}"),
            phase=phase,
            least_s=sizes.least_s,
        )
