"""What a workload works with: servers of one kind, their users, and where figures go."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from scripts.benchmark.client import Client, User
from scripts.benchmark.phases import Phase, closed_loop, quiet
from scripts.benchmark.residents import Residents
from scripts.benchmark.servers import KINDS, Server
from scripts.benchmark.sizes import Sizes

T = TypeVar("T")
_SETTLE_S = 90


class Context:
    """One kind of server through all rounds; `close` ends its processes.

    Parameters: `directory` for its files; `python` has the server installed; `residents` play
    the servers that it meets.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        sizes: Sizes,
        *,
        postgres: bool,
        python: str,
        residents: Residents,
        log: Callable[[str], None],
    ) -> None:
        self.kind = kind
        self.sizes = sizes
        self.python = python
        self.residents = residents
        self.directory = directory
        self.log = log
        self.postgres = postgres
        self._servers: list[Server] = []
        self._main: Server | None = None
        self._users: list[User] = []
        self._fixtures: dict[Any, Any] = {}
        self._count = 0
        self._begin()

    def _begin(self) -> None:
        self.phases: list[dict[str, Any]] = []
        self.values: list[dict[str, Any]] = []
        self.series: dict[str, list[list[float]]] = {}
        self.notes: list[str] = []

    def take(self) -> dict[str, Any]:
        """What was measured since the last time."""
        found = {
            "phases": self.phases,
            "values": self.values,
            "series": self.series,
            "notes": self.notes,
        }
        self._begin()
        return found

    # Servers

    async def new_server(self, make: Callable[[Path], Server] | None = None) -> Server:
        """Start another server, on a new database, and wait until it is quiet.

        `make` makes it for a directory; else it is one of this kind as it mostly is. Raises
        StartFailed, ServiceError.
        """
        self._count += 1
        directory = self.directory / f"{self.kind}-{self._count}"
        if make is None:
            make = partial(KINDS[self.kind], postgres=self.postgres, python=self.python)
        server = make(directory)
        self._servers.append(server)
        await server.start()
        # A new database is still being worked on.
        await quiet([server], _SETTLE_S)
        return server

    async def server(self) -> Server:
        """The server that the workloads share; started if it does not run."""
        if self._main is None:
            self._main = await self.new_server()
        elif not self._main.alive:
            self.log(f"{self._main.title} is gone, see {self._main.directory}: it starts again")
            await self._main.start()
        return self._main

    def end(self, server: Server) -> None:
        """End a server of `new_server`."""
        server.close()
        self._servers.remove(server)

    def close(self) -> None:
        """End all servers."""
        while self._servers:
            server = self._servers.pop()
            try:
                server.close()
            except Exception as error:
                self.log(f"{server.title} (process {server.pid}) could not be ended: {error!r}")

    # What workloads share

    async def users(self, count: int) -> list[User]:
        """The first so many of the users that workloads share."""
        client = (await self.server()).client
        there = len(self._users)
        self._users += await register(client, f"pool{there}-", count - there)
        return self._users[:count]

    async def fixture(self, make: Callable[[Context], Awaitable[T]]) -> T:
        """`make(self)`, made once."""
        if make not in self._fixtures:
            self._fixtures[make] = await make(self)
        found: T = self._fixtures[make]
        return found

    # Figures

    def note(self, text: str) -> None:
        """Tell the report how much the workload did."""
        self.notes.append(text)

    def value(
        self, name: str, title: str, value: float, unit: str, *, comparable: bool = True
    ) -> None:
        """A figure that is no phase's. `comparable`: after the same work with both servers."""
        self.values.append(
            {
                "name": name,
                "title": title,
                "value": round(value, 4),
                "unit": unit,
                "comparable": comparable,
            }
        )

    def cpu(self, name: str, title: str, unit: str, seconds: float) -> None:
        """CPU time of one operation that was measured elsewhere."""
        document = Phase(name, title, unit, [], rate=False).document()
        document |= {"operations": 1, "server_cpu_s": round(seconds, 6)}
        self.phases.append(document)

    @asynccontextmanager
    async def phase(
        self,
        name: str,
        title: str,
        unit: str,
        *,
        servers: Sequence[Server] | None = None,
        rate: bool = True,
        whole: bool = True,
    ) -> AsyncIterator[Phase]:
        """Measure what is done inside; of `servers`, by default the shared one.

        `whole`: all of it is one segment; else there are `Phase.segment` inside.
        """
        measured = [await self.server()] if servers is None else servers
        phase = Phase(name, title, unit, measured, rate)
        for server in measured:
            await server.tidy()
        await quiet(measured)
        gc.collect()
        if whole:
            async with phase.segment():
                yield phase
        else:
            yield phase
        document = phase.document()
        self.phases.append(document)
        cpu = 1000 * (document["server_cpu_s"] + document["database_cpu_s"])
        count = max(1, document["operations"])
        self.log(
            f"  {title}: {count} in {document['wall_s']:.1f} s, {cpu / count:.3g} ms of CPU each"
        )


async def register(client: Client, stem: str, count: int) -> list[User]:
    """Make so many users."""
    made: dict[int, User] = {}

    async def one(number: int, _worker: int) -> None:
        made[number] = await client.register(f"{stem}{number}")

    if count > 0:
        await closed_loop(8, count, one)
    return [made[number] for number in range(max(0, count))]
