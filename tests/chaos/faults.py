"""What goes wrong, at random: each fault lasts a while, or until it is told to end."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from tests.chaos.cast import Cast
from tests.chaos.links import KINDS
from tests.chaos.servers import Server
from tests.support.federated_process import FederatedProcess

Say = Callable[[str], None]
PAUSE_S = (1.0, 7.0)
"""Between two faults."""


class Faults:
    """Spoils servers and links while `run` runs. `counts` what was done."""

    def __init__(self, servers: Sequence[Server], cast: Cast, chance: Random, say: Say) -> None:
        self._servers = servers
        self._cast = cast
        self._chance = chance
        self._say = say
        self.counts: Counter[str] = Counter()
        self._over = asyncio.Event()
        self._crashing = False
        self._without_redis: set[Server] = set()

    async def run(self, seconds: float) -> None:
        """Spoil things for so long; in the end nothing is held any more, and much is broken."""
        self._over.clear()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        tasks: set[asyncio.Task[None]] = set()
        while loop.time() < end:
            await asyncio.sleep(min(self._chance.uniform(*PAUSE_S), max(0, end - loop.time())))
            fault = self._choose()
            if fault is not None:
                tasks.add(task := asyncio.create_task(self._guarded(fault)))
                task.add_done_callback(tasks.discard)
        self._over.set()
        await asyncio.gather(*tasks)

    async def _guarded(self, fault: Awaitable[None]) -> None:
        try:
            await fault
        except Exception as error:
            self._cast.ledger.problem("what was broken could not be mended", repr(error))

    async def _last(self, least: float, most: float) -> None:
        """Wait for a while, or for the end."""
        try:
            await asyncio.wait_for(self._over.wait(), self._chance.uniform(least, most))
        except TimeoutError:
            pass

    def _choose(self) -> Awaitable[None] | None:
        server = self._chance.choice(self._servers)
        kinds = {"link": 9, "both links": 3, "kill": 7, "pause": 2, "stop": 1, "crash": 1.5}
        if server.redis is not None:
            kinds |= {"redis": 1}
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0]
        if kind == "link":
            return self._link([server])
        if kind == "both links":
            return self._link(self._servers)
        if kind == "redis":
            return self._redis(server)
        if kind == "crash":
            return self._crash()
        free = [each for each in server.processes if each not in server.busy]
        if not free:
            return None
        process = self._chance.choice(free)
        # Taken at once: nobody else may choose it before the task runs.
        server.busy.add(process)
        return {"kill": self._kill, "pause": self._pause, "stop": self._stop}[kind](server, process)

    async def _link(self, servers: Sequence[Server]) -> None:
        kind = self._chance.choice(KINDS)
        whole = [server for server in servers if server.link.state is None]
        for server in whole:
            self._say(f"the link to {server.directory.name}: {kind}")
            self.counts[f"link {kind}"] += 1
            server.link.spoil(kind)
        await self._last(2, 45)
        for server in whole:
            self._say(f"the link to {server.directory.name} is whole")
            server.link.heal()

    async def _kill(self, server: Server, process: FederatedProcess) -> None:
        self._say(f"kill -9 {process.directory.name} of {server.directory.name}")
        self.counts["kill -9 of a server process"] += 1
        await asyncio.to_thread(process.kill)
        await self._again(server, process)

    async def _stop(self, server: Server, process: FederatedProcess) -> None:
        self._say(f"stop {process.directory.name} of {server.directory.name}")
        self.counts["clean stop of a server process"] += 1
        status = await asyncio.to_thread(process.stop)
        if status != 0:
            self._cast.ledger.problem("a process did not stop well", f"status {status}")
        await self._again(server, process)

    async def _again(self, server: Server, process: FederatedProcess) -> None:
        await self._last(0, 12)
        await server.revive(process)
        self._say(f"{process.directory.name} of {server.directory.name} is back")
        server.busy.discard(process)

    async def _pause(self, server: Server, process: FederatedProcess) -> None:
        """The process hangs, longer than its leases last at times."""
        self._say(f"{process.directory.name} of {server.directory.name} hangs")
        self.counts["hang of a server process"] += 1
        process.signal(signal.SIGSTOP)
        await self._last(2, 35)
        process.signal(signal.SIGCONT)
        self._say(f"{process.directory.name} of {server.directory.name} goes on")
        server.busy.discard(process)

    async def _redis(self, server: Server) -> None:
        redis = server.redis
        if redis is None or server in self._without_redis:
            return
        self._without_redis.add(server)
        self._say(f"Redis of {server.directory.name} is stopped")
        self.counts["stop of Redis"] += 1
        await asyncio.to_thread(redis.stop)
        await self._last(0, 10)
        await asyncio.to_thread(redis.start)
        self._without_redis.discard(server)
        self._say(f"Redis of {server.directory.name} is back")

    async def _crash(self) -> None:
        host = self._chance.choice(self._cast.hosts)
        if self._crashing:
            return
        self._crashing = True
        self._say(f"kill -9 of the clients' process {self._cast.hosts.index(host)}")
        await self._cast.crash(host)
        self._crashing = False
