"""A user in many rooms: the first `/sync`, later ones, and sliding sync."""

from __future__ import annotations

import time
from dataclasses import dataclass

from scripts.benchmark.client import Json, User
from scripts.benchmark.context import Context
from scripts.benchmark.phases import closed_loop, quiet

_IN_ALL = "in-all-rooms"
_TIMELINE: Json = {"timeline": {"limit": 10}}
LAZY: Json = {"room": {**_TIMELINE, "state": {"lazy_load_members": True}}}
ALL_MEMBERS: Json = {"room": _TIMELINE}
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
_STATE = [["m.room.name", ""], ["m.room.encryption", ""], ["m.room.member", "$LAZY"]]


@dataclass(frozen=True, slots=True)
class ManyRooms:
    """`users` are in all `rooms` and write in them; `few` is in the first of them only."""

    users: list[User]
    rooms: list[str]
    few: User


async def many_rooms(ctx: Context) -> ManyRooms:
    """Make them, with members and messages."""
    sizes = ctx.sizes
    client = (await ctx.server()).client
    users = await ctx.users(sizes.room_members - 1)
    in_all, few = await client.register(_IN_ALL), await client.register("in-some-rooms")
    rooms = [""] * sizes.rooms

    async def make(number: int, _worker: int) -> None:
        creator = users[number % len(users)]
        room = await creator.create_room(
            sizes.room_version, name=f"Room {number}", topic="One of many"
        )
        joining = [user for user in users if user is not creator] + [in_all]
        for user in [*joining, few] if number < sizes.idle_rooms else joining:
            await user.join(room)
        for message in range(sizes.room_messages):
            # Two talk: a client that loads members lazily is told of them only.
            await users[message % 2].send(room, f"message {message}")
        rooms[number] = room

    await closed_loop(6, sizes.rooms, make)
    return ManyRooms(users, rooms, few)


async def run_initial(ctx: Context) -> None:
    """The first `/sync` of new devices."""
    sizes = ctx.sizes
    await ctx.fixture(many_rooms)
    client = (await ctx.server()).client
    ctx.note(
        f"{sizes.rooms} rooms of {sizes.room_members} to {sizes.room_members + 1} members with "
        f"{sizes.room_messages} messages each; every first `/sync` is that of a new device."
    )
    for name, title, definition in (
        ("lazy", "lazy members", LAZY),
        ("all_members", "all members", ALL_MEMBERS),
    ):
        answer = b""
        title = f"{sizes.rooms} rooms, {title}"
        async with ctx.phase(f"initial.{name}", title, "sync", rate=False, whole=False) as phase:
            for _ in range(sizes.initial_syncs):
                device = await client.login(_IN_ALL)
                filter_id = await device.filter_id(definition)
                async with phase.segment():
                    with phase.timed():
                        answer = await device.sync_bytes(None, 0, filter_id)
        ctx.value(f"initial.{name}_kb", f"answer of {title}", len(answer) / 1000, "kB")


async def run_incremental(ctx: Context) -> None:
    """`/sync` of somebody in many rooms: nothing is new, and one message is."""
    sizes = ctx.sizes
    server, made = await ctx.server(), await ctx.fixture(many_rooms)
    rooms = made.rooms[: sizes.idle_rooms]
    filter_id = await made.few.filter_id(LAZY)
    since = await made.few.catch_up(filter_id)
    title = f"nothing new in {len(rooms)} rooms"
    async with ctx.phase("sync.nothing_new", title, "sync") as phase:
        began = time.perf_counter()
        while phase.operations < sizes.sync_idle or time.perf_counter() - began < sizes.least_s:
            with phase.timed():
                since = (await made.few.sync(since, 0, filter_id))["next_batch"]
    title = f"one message in one of {len(rooms)} rooms"
    async with ctx.phase("sync.one_message", title, "sync", rate=False, whole=False) as phase:
        for number in range(sizes.sync_change):
            room = rooms[number % len(rooms)]
            await made.users[0].send(room, f"change {number}")
            await quiet([server])  # What sending still costs is not counted.
            async with phase.segment(trailing=False):
                with phase.timed():
                    answer = await made.few.sync(since, 0, filter_id)
            since = answer["next_batch"]
            if room not in answer.get("rooms", {}).get("join", {}):
                raise RuntimeError("a message was not in the next /sync")


async def _slide(user: User, position: str | None, until: int) -> Json:
    listed = {"ranges": [[0, until]], "timeline_limit": 1, "required_state": _STATE}
    query = "?timeout=0&set_presence=offline" + (f"&pos={position}" if position else "")
    body = {"conn_id": "bench", "lists": {"all": listed}}
    return await user.client.call("POST", SLIDING + query, body, user.token)


async def run_sliding(ctx: Context) -> None:
    """Simplified sliding sync: a first screen of rooms, the rest of them, one message."""
    sizes = ctx.sizes
    server, made = await ctx.server(), await ctx.fixture(many_rooms)
    client = server.client
    device, answer = None, {}
    async with ctx.phase(
        "sliding.first", "first 20 rooms", "sync", rate=False, whole=False
    ) as phase:
        for _ in range(sizes.initial_syncs):
            device = await client.login(_IN_ALL)
            async with phase.segment():
                with phase.timed():
                    answer = await _slide(device, None, 19)
    if len(answer["rooms"]) != min(20, sizes.rooms):
        raise RuntimeError("sliding sync did not give the rooms that were asked for")
    assert device is not None
    title = f"the other {sizes.rooms - 20} rooms"
    async with ctx.phase("sliding.rest", title, "sync", rate=False) as phase:
        with phase.timed():
            answer = await _slide(device, answer["pos"], sizes.rooms)
    position = answer["pos"]
    title = f"one message in one of {sizes.rooms} rooms"
    async with ctx.phase("sliding.one_message", title, "sync", rate=False, whole=False) as phase:
        for number in range(sizes.sync_change):
            room = made.rooms[number % len(made.rooms)]
            await made.users[0].send(room, f"sliding {number}")
            await quiet([server])  # What sending still costs is not counted.
            async with phase.segment(trailing=False):
                with phase.timed():
                    answer = await _slide(device, position, sizes.rooms)
            position = answer["pos"]
            if room not in answer.get("rooms", {}):
                raise RuntimeError("a message was not in the next sliding sync")
