"""What is measured: CPU until the servers are quiet again, wall time, latencies."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from scripts.benchmark import readings
from scripts.benchmark.servers import Server

QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
"""Of the latencies, kept in the result file."""
_QUIET = 0.1
"""Of a core."""
MOST = 50
"""A closed loop that lasts ends at so many times its count."""


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """The value of nearest rank; `ordered` is sorted and not empty."""
    return ordered[max(1, math.ceil(len(ordered) * fraction)) - 1]


@dataclass(frozen=True, slots=True)
class _Reading:
    wall: float
    loadgen: float
    machine: readings.MachineCpu
    server: float
    database: float

    @classmethod
    def take(cls, servers: Sequence[Server]) -> _Reading:
        used = [server.usage() for server in servers]
        return cls(
            time.perf_counter(),
            time.process_time(),
            readings.machine_cpu(),
            sum(usage.server for usage in used),
            sum(usage.database for usage in used),
        )


class Phase:
    """One measured stretch of a workload; `servers` are those whose CPU time counts.

    `unit` is what `operations` counts, in the singular. `rate`: whether operations a second tell
    something that the latency does not.
    """

    def __init__(self, name: str, title: str, unit: str, servers: Sequence[Server], rate: bool):
        self.name, self.title, self.unit, self.rate = name, title, unit, rate
        self.operations = 0
        self.latencies: list[float] = []
        """Seconds."""
        self._servers = servers
        self._wall = self._accounted = 0.0
        self._server = self._database = self._loadgen = self._others = self._stolen = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """One operation, with its latency."""
        started = time.perf_counter()
        yield
        self.latencies.append(time.perf_counter() - started)
        self.operations += 1

    @asynccontextmanager
    async def segment(self, *, trailing: bool = True) -> AsyncIterator[None]:
        """A stretch that counts, and with `trailing` the CPU time used until it is quiet."""
        before = _Reading.take(self._servers)
        yield
        after = _Reading.take(self._servers)
        self._wall += after.wall - before.wall
        self._add(before, after)
        if trailing:
            await quiet(self._servers)
            self._add(after, _Reading.take(self._servers))

    def _add(self, before: _Reading, after: _Reading) -> None:
        server, database = after.server - before.server, after.database - before.database
        loadgen = after.loadgen - before.loadgen
        busy = after.machine.busy - before.machine.busy
        self._accounted += after.wall - before.wall
        self._server += server
        self._database += database
        self._loadgen += loadgen
        self._others += max(0.0, busy - server - database - loadgen)
        self._stolen += after.machine.stolen - before.machine.stolen

    def document(self) -> dict[str, Any]:
        """For the result file; times in seconds, latencies in milliseconds."""
        count = self.operations or len(self.latencies)
        ordered = sorted(self.latencies)
        milliseconds = [round(quantile(ordered, at) * 1000, 3) for at in QUANTILES if ordered]
        accounted = self._accounted or 1.0
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "rate": self.rate,
            "operations": count,
            "wall_s": round(self._wall, 4),
            "server_cpu_s": round(self._server, 4),
            "database_cpu_s": round(self._database, 4),
            "loadgen_cpu_s": round(self._loadgen, 4),
            "others_cores": round(self._others / accounted, 3),
            "stolen_cores": round(self._stolen / accounted, 3),
            "latency_ms": milliseconds,
        }


async def quiet(servers: Sequence[Server], longest_s: float = 10.0) -> None:
    """Wait until the servers and their databases use less than a tenth of a core."""

    def used() -> float:
        return sum(server.usage().total for server in servers)

    deadline = time.perf_counter() + longest_s
    since, before = time.perf_counter(), used()
    while time.perf_counter() < deadline:
        await asyncio.sleep(0.25)
        now, after = time.perf_counter(), used()
        if after - before < _QUIET * (now - since):
            return
        since, before = now, after


async def closed_loop(
    workers: int,
    count: int,
    operation: Callable[[int, int], Awaitable[object]],
    *,
    phase: Phase | None = None,
    least_s: float = 0.0,
) -> int:
    """Run `operation(number, worker)` with so many in flight; how often it ran.

    A worker begins with the next when its last one has ended. It goes on after `count` until
    `least_s` have passed; then the numbers are higher than the count.
    """
    ends = time.perf_counter() + least_s
    done = 0

    def next_number() -> int | None:
        nonlocal done
        more = done < count or (done < MOST * count and time.perf_counter() < ends)
        if not more:
            return None
        done += 1
        return done - 1

    async def work(worker: int) -> None:
        while (number := next_number()) is not None:
            started = time.perf_counter()
            await operation(number, worker)
            if phase is not None:
                phase.latencies.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for worker in range(workers):
            group.create_task(work(worker))
    return done
