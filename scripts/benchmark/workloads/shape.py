"""First syncs of many at once, in the shape of a study: 200 users, 300 rooms, 300 members."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from scripts.benchmark.client import User
from scripts.benchmark.context import Context
from scripts.benchmark.phases import closed_loop
from scripts.benchmark.workloads.many_rooms import LAZY

USERS, ROOMS, MEMBERS = 200, 300, 300
_MESSAGES = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of the study, each multiplied by a scale."""

    users: int
    rooms: int
    members: int

    @classmethod
    def scaled(cls, scale: float) -> Shape:
        """Above 0; 1 is the study's."""
        return cls(*(max(2, round(number * scale)) for number in (USERS, ROOMS, MEMBERS)))


async def rooms_of_all(ctx: Context) -> list[User]:
    """Rooms in which all members are; the members."""
    shape = Shape.scaled(ctx.sizes.scale)
    users = await ctx.users(shape.members)

    async def make(number: int, _worker: int) -> None:
        creator = users[number % len(users)]
        room = await creator.create_room(ctx.sizes.room_version, name=f"Shape {number}")
        for user in users:
            if user is not creator:
                await user.join(room)
        for message in range(_MESSAGES):
            await users[message % len(users)].send(room, f"message {message}")

    await closed_loop(6, shape.rooms, make)
    return users


async def run(ctx: Context) -> None:
    """Measure the first syncs of new devices of all users at the same time."""
    shape = Shape.scaled(ctx.sizes.scale)
    members = await ctx.fixture(rooms_of_all)
    ctx.note(
        f"Scale {ctx.sizes.scale:g}: {shape.users} users, each in {shape.rooms} rooms of "
        f"{shape.members} members; 1 is {USERS} × {ROOMS} × {MEMBERS}."
    )
    client = (await ctx.server()).client
    devices: list[User] = []
    for user in members[: shape.users]:
        name = user.user_id[1:].partition(":")[0]
        device = await client.login(name)
        await device.filter_id(LAZY)
        devices.append(device)
    title = f"{shape.users} users, {shape.rooms} rooms of {shape.members}"
    async with ctx.phase("shape.lazy", title, "sync") as phase:

        async def sync(device: User) -> None:
            with phase.timed():
                await device.sync_bytes(None, 0, await device.filter_id(LAZY))

        await asyncio.gather(*(sync(device) for device in devices))
