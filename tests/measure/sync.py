"""CPU time of `/sync`: `python -m tests.measure.sync [--rooms N] [--members N] [--profile]`.

A whole homeserver without sockets. Prints milliseconds of CPU for each incremental sync with one
new message in one room, for syncs without news, and for an initial sync.
"""

from __future__ import annotations

import argparse
import cProfile
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
from homeserver.sync.engine import SyncEngine
from tests.support.client import Client
from tests.support.server import TestServer, User, test_config

reactor: Any = installed
PRESENCE = "online"
LAZY = '{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":20}}}'


async def spent(count: int, work: Callable[[int], Awaitable[object]]) -> float:
    """Milliseconds of CPU, of all threads, for each of `count` runs."""
    began = time.process_time()
    for number in range(count):
        await work(number)
    return (time.process_time() - began) * 1000 / count


class Measurement:
    """See the module."""

    def __init__(self, server: TestServer, options: argparse.Namespace) -> None:
        self.server = server
        self.options = options

    async def prepare(self) -> None:
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        others = [await self.server.register() for _ in range(self.options.members)]
        self.rooms = []
        for number in range(self.options.rooms):
            room_id = await self.alice.create_room(preset="public_chat", name=f"Room {number}")
            await self.bob.join(room_id)
            self.rooms.append(room_id)
        for user in others:
            await user.join(self.rooms[0])
        for number in range(30):
            await self.alice.send(self.rooms[0], f"message {number}")

    async def run(self) -> None:
        await self.prepare()
        token = ""

        async def initial(_: int) -> None:
            nonlocal token
            token = (await self.sync(self.bob))["next_batch"]

        print(f"initial sync, {len(self.rooms)} rooms: {await spent(3, initial):.1f} ms")

        async def empty(_: int) -> None:
            await self.sync(self.bob, token)

        await empty(0)
        print(f"nothing new: {await spent(200, empty):.2f} ms")
        profile = self.profile_reading() if self.options.profile else None
        total = 0.0
        count = 200
        for number in range(count):
            await self.alice.send(self.rooms[number % len(self.rooms)], f"again {number}")
            began = time.process_time()
            answer = await self.sync(self.bob, token)
            total += time.process_time() - began
            token = answer["next_batch"]
            assert len(answer["rooms"]["join"]) == 1
        print(f"one message: {total * 1000 / count:.2f} ms")
        if profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)

    def profile_reading(self) -> cProfile.Profile:
        """A profile of what happens in database threads."""
        profile = cProfile.Profile()
        engine = self.server.homeserver.services[SyncEngine]
        read = engine.read

        def profiled(*args: Any) -> Any:
            profile.enable()
            try:
                return read(*args)
            finally:
                profile.disable()

        engine.read = profiled  # type: ignore
        return profile

    async def sync(self, user: User, since: str | None = None) -> Any:
        query = {"timeout": "0", "filter": LAZY, "set_presence": PRESENCE}
        if since:
            query["since"] = since
        request = user.client.build("GET", "/_matrix/client/v3/sync", query=query)
        response = await self.server.homeserver.router.handle(request)
        assert isinstance(response.body, bytes)
        return orjson.loads(response.body)


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        config = test_config(Path(directory), f"sqlite:///{directory}/hearth.db")
        homeserver = await build(config, reactor, structlog.get_logger())
        try:
            server = TestServer(homeserver, Client(homeserver.router))
            await Measurement(server, options).run()
        finally:
            await homeserver.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rooms", type=int, default=100)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    task.react(lambda _: Deferred.fromCoroutine(main(options)))
