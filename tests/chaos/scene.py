"""Servers, users, devices and rooms at the beginning of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.chaos.cast import Cast, User
from tests.chaos.servers import Server

TEAMS = 3


async def people(cast: Cast, servers: Sequence[Server], clients: int) -> None:
    """Register users, in turn on each server, and give them a device; every second one has two."""
    for number in range(clients):
        server = servers[number % len(servers)]
        name = f"user{number}"
        host = cast.hosts[number % len(cast.hosts)]
        user_id = await server.register(name)
        cast.users.append(User(name, user_id, server, host))

    async def equip(number: int) -> None:
        for _ in range(2 if number // 2 % 2 else 1):
            await cast.new_device(cast.users[number])

    for start in range(0, clients, 4):
        await asyncio.gather(*(equip(n) for n in range(start, min(start + 4, clients))))


async def rooms(cast: Cast, servers: Sequence[Server]) -> None:
    """Make rooms: one with everybody; teams, half of whose members come and go; and for each
    server a room whose only guests from the other server come and go, and the server with them.
    """
    await _room(cast, "all", cast.users, [])
    for number in range(TEAMS):
        members = [u for n, u in enumerate(cast.users) if n // 2 % TEAMS == number]
        half = len(members) // 2
        await _room(cast, f"team {number}", members[:half], members[half:])
    for number, server in enumerate(servers):
        own = [user for user in cast.users if user.server is server]
        others = [user for user in cast.users if user.server is not server]
        stay = own[number : number + 3]
        await _room(cast, f"house of {server.directory.name}", stay, others[-2:])


async def _room(cast: Cast, name: str, stay: Sequence[User], guests: Sequence[User]) -> None:
    founder = stay[0]
    room = await cast.do(min(founder.devices), "create", name=name)
    cast.rooms[room] = name
    founder.rooms.add(room)
    for user in (*stay[1:], *guests):
        await cast.join(user, room)
        if room not in user.rooms:
            raise AssertionError(f"{user.user_id} cannot enter {name}: {cast.answers}")
    for user in guests:
        user.guest_of.add(room)
