"""CPU time of reading: `python -m tests.measure.reading --postgres [--keep DIR] [--profile WHAT]`.

A whole homeserver without sockets. Prints milliseconds of CPU (of this process, of its reactor
thread alone, and of the database's) for initial syncs of a user in many rooms, sliding sync, pages
of history, members and state; the least of several rounds. `--keep` keeps the database, so that
the next run need not fill it.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import itertools
import json
import pstats
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import structlog
from twisted.internet import reactor as installed
from twisted.internet import task
from twisted.internet.defer import Deferred

from homeserver.app import build
from homeserver.rooms.shown_rooms import ShownRooms
from storage.database import Database
from tests.measure.machine import cpu_seconds, tree
from tests.support.client import Client
from tests.support.server import TestServer, User, test_config
from tests.support.services import PostgresCluster

reactor: Any = installed
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
STATE = [["m.room.name", ""], ["m.room.encryption", ""], ["m.room.member", "$LAZY"]]
TIMELINE = {"timeline": {"limit": 10}}
LAZY = json.dumps({"room": {**TIMELINE, "state": {"lazy_load_members": True}}})
EVERYBODY = json.dumps({"room": TIMELINE})


async def fill(server: TestServer, options: argparse.Namespace) -> dict[str, Any]:
    """Rooms of the shape that the benchmark has."""
    members = [await server.register(f"m{number}") for number in range(options.members - 1)]
    reader = await server.register("reader")
    rooms = []
    for number in range(options.rooms):
        creator = members[number % len(members)]
        room = await creator.create_room(
            preset="public_chat", name=f"Room {number}", topic="One of many"
        )
        for user in [user for user in members if user is not creator] + [reader]:
            await user.join(room)
        for message in range(10):
            await members[message % 2].send(room, f"message {message}")
        rooms.append(room)
    big = await members[0].create_room(preset="public_chat", name="Big room")
    await reader.join(big)
    for number in range(options.big):
        await (await server.register(f"big{number}")).join(big)
    for number in range(options.history):
        await members[0].send(rooms[0], f"message {number} of history")
    people = {user.user_id: (user.token, user.device_id) for user in (members[0], reader)}
    return {"rooms": rooms, "big": big, "people": people}


class Measurement:
    """See the module."""

    def __init__(
        self, server: TestServer, made: dict[str, Any], options: argparse.Namespace, database: int
    ) -> None:
        self.server = server
        self.made = made
        self.options = options
        self.database = database
        self.talker, self.reader = (
            # Transaction IDs that no earlier run used.
            User(server, name, token, device, itertools.count(time.time_ns()))
            for name, (token, device) in made["people"].items()
        )

    def spent(self) -> tuple[float, float, float]:
        """CPU seconds of the process, of this thread, of the database."""
        database = cpu_seconds(tree(self.database)) if self.database else 0.0
        return time.process_time(), time.thread_time(), database

    async def measure(self, name: str, work: Callable[[int], Awaitable[int]], count: int) -> None:
        """Print the least of the rounds; `work` says the size of its answer."""
        if self.options.only and not name.startswith(tuple(self.options.only.split(","))):
            return
        least: list[float] = []
        size = 0
        await work(-1)
        with self.profiled(name):
            for turn in range(self.options.rounds):
                before = self.spent()
                for number in range(count):
                    size = await work(turn * count + number)
                used = [(b - a) * 1000 / count for a, b in zip(before, self.spent(), strict=True)]
                least = used if not least or sum(used) < sum(least) else least
        own, thread, database = least
        print(
            f"{name:<24} {own + database:9.2f} ms: {own:9.2f} here ({thread:8.2f} in the reactor),"
            f" {database:9.2f} in the database; {size / 1000:9.1f} kB",
            flush=True,
        )

    @contextlib.contextmanager
    def profiled(self, name: str) -> Any:
        """A profile of what happens in database threads, if it was asked for."""
        if name != self.options.profile:
            yield
            return
        database = self.server.homeserver.services[Database]
        profile = cProfile.Profile()
        threads = database._threads
        submit = threads.submit

        def profiling(kind: str, fn: Any, args: Any, kwargs: Any) -> Any:
            def run(*given: Any, **more: Any) -> Any:
                profile.enable()
                try:
                    return fn(*given, **more)
                finally:
                    profile.disable()

            return submit(kind, run, args, kwargs)

        threads.submit = profiling  # type: ignore
        try:
            yield
        finally:
            threads.submit = submit  # type: ignore
            for order in ("cumulative", "tottime"):
                pstats.Stats(profile).sort_stats(order).print_stats(60)

    async def body(self, user: User, method: str, path: str, json: Any = None, **query: Any) -> Any:
        """The bytes of an answer."""
        request = user.client.build(method, path, json, query=query)
        response = await self.server.homeserver.router.handle(request)
        assert response.status == 200 and isinstance(response.body, bytes), response.body
        return response.body

    async def run(self) -> None:
        room, big = self.made["rooms"][0], self.made["big"]
        client = "/_matrix/client/v3"

        def sync(filter: str) -> Callable[[int], Awaitable[int]]:
            async def work(_: int) -> int:
                return len(
                    await self.body(self.reader, "GET", f"{client}/sync", filter=filter, timeout=0)
                )

            return work

        for name, wanted in (("lazy", LAZY), ("everybody", EVERYBODY)):
            await self.measure(f"initial {name}", sync(wanted), 2)

            async def cold(_: int, wanted: str = wanted) -> int:
                for cache in self.server.homeserver.services[ShownRooms].caches:
                    cache.clear()
                return await sync(wanted)(0)

            await self.measure(f"initial {name}, cold", cold, 1)
        await self.gappy()
        await self.measure("sliding 20 rooms", lambda _: self.slide(19), 4)
        await self.measure("sliding all rooms", lambda _: self.slide(1000), 2)
        await self.sliding_messages()

        async def history(_: int) -> int:
            return len(
                await self.body(
                    self.reader, "GET", f"{client}/rooms/{room}/messages", dir="b", limit=100
                )
            )

        await self.measure("messages 100", history, 20)
        for what in ("members", "joined_members", "state"):

            async def read(_: int, what: str = what) -> int:
                return len(await self.body(self.reader, "GET", f"{client}/rooms/{big}/{what}"))

            await self.measure(what, read, 4)

    async def slide(self, until: int, pos: str | None = None) -> int:
        self.answer = await self.body(
            self.reader,
            "POST",
            SLIDING,
            {
                "conn_id": f"measure{until}",
                "lists": {
                    "all": {
                        "ranges": [[0, until]],
                        "timeline_limit": 1,
                        "required_state": STATE,
                    }
                },
            },
            timeout=0,
            **({"pos": pos} if pos else {}),
        )
        return len(self.answer)

    async def gappy(self) -> None:
        """A client that was away while something was said in many rooms."""
        if self.options.only and not "gappy".startswith(tuple(self.options.only.split(","))):
            return
        query = {"filter": LAZY, "timeout": 0}
        path = "/_matrix/client/v3/sync"
        token = orjson.loads(await self.body(self.reader, "GET", path, **query))["next_batch"]
        for number, room in enumerate(self.made["rooms"][:100]):
            await self.talker.send(room, f"meanwhile {number}")

        async def sync(_: int) -> int:
            return len(await self.body(self.reader, "GET", path, since=token, **query))

        await self.measure("gappy, 100 rooms", sync, 2)

    async def sliding_messages(self) -> None:
        await self.slide(1000)
        await self.slide(1000, orjson.loads(self.answer)["pos"])
        rooms = self.made["rooms"]

        async def send(number: int) -> int:
            await self.talker.send(rooms[number % len(rooms)], f"sliding {number}")
            return 0

        async def both(number: int) -> int:
            await send(number)
            size = await self.slide(1000, orjson.loads(self.answer)["pos"])
            assert rooms[number % len(rooms)] in orjson.loads(self.answer)["rooms"], self.answer
            return size

        await self.measure("sliding: send", send, 50)
        await self.measure("sliding: send, one message", both, 50)


async def main(options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        directory = Path(
            options.keep or stack.enter_context(tempfile.TemporaryDirectory())
        ).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        url, database = f"sqlite:///{directory}/hearth.db", 0
        if options.postgres:
            cluster = PostgresCluster(directory)
            if cluster.data.exists():
                cluster.start()
            else:
                cluster.create()
            stack.callback(cluster.stop)
            url = cluster.url
            database = int((cluster.data / "postmaster.pid").read_text().split()[0])
        homeserver = await build(test_config(directory, url), reactor, structlog.get_logger())
        try:
            server = TestServer(homeserver, Client(homeserver.router))
            kept = directory / f"made-{'postgres' if options.postgres else 'sqlite'}.json"
            if not kept.exists():
                kept.write_text(json.dumps(await fill(server, options)))
            await Measurement(server, json.loads(kept.read_text()), options, database).run()
        finally:
            await homeserver.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rooms", type=int, default=500)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--big", type=int, default=2000)
    parser.add_argument("--history", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--keep")
    parser.add_argument("--only", default="")
    parser.add_argument("--profile", default="", help="what to profile")
    options = parser.parse_args()
    task.react(lambda _: Deferred.fromCoroutine(main(options)))
