"""CPU of requests with and without direct queries: `python -m tests.measure.requests [--postgres]`.

A whole homeserver without sockets. The operations of `tests.guards.operations` are run in turns:
as they are, and with all small reads in threads. Prints microseconds of CPU for each, of the server
and of PostgreSQL's processes; the least of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog
from twisted.internet import reactor as installed
from twisted.internet import task
from twisted.internet.defer import Deferred

from homeserver.app import build
from storage.database import Database, sleep
from tests.guards.counting import Step, quiet
from tests.guards.operations import Measured, run_of_clients
from tests.measure import machine
from tests.support.client import Client
from tests.support.server import TestServer, test_config
from tests.support.services import PostgresCluster

reactor: Any = installed


class Timed(Measured):
    """Times operations instead of counting statements."""

    def __init__(
        self, db: Database, cluster: PostgresCluster | None, count: int, rounds: int
    ) -> None:
        super().__init__(db)
        self._cluster = cluster
        self._count = count
        self._rounds = rounds

    async def run(self, name: str, operation: Step, before: Step | None = None) -> None:
        """Print what an operation costs in both ways."""
        direct = self._db._direct
        least = {True: (9e9, 9e9), False: (9e9, 9e9)}
        try:
            for _ in range(self._rounds):
                for is_direct in (True, False):
                    self._db._direct = direct if is_direct else None
                    here, there = await self._spent(operation, before)
                    old = least[is_direct]
                    least[is_direct] = min(here, old[0]), min(there, old[1])
        finally:
            self._db._direct = direct
        columns = "".join(f"{here:9.0f} +{there:6.0f}" for here, there in least.values())
        print(f"{name:36}{columns}", flush=True)

    async def _spent(self, operation: Step, before: Step | None) -> tuple[float, float]:
        here = there = 0.0
        await quiet(self._db)
        for _ in range(self._count):
            if before is not None:
                await before()
                await quiet(self._db)
            began_there = self._of_database()
            began = time.process_time()
            await operation()
            here += time.process_time() - began
            there += self._of_database() - began_there
        return here * 1e6 / self._count, there * 1e6 / self._count

    def _of_database(self) -> float:
        if self._cluster is None:
            return 0.0
        first = (self._cluster.data / "postmaster.pid").read_text().split()[0]
        return machine.cpu_seconds(machine.tree(int(first)))


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cluster = PostgresCluster(directory) if options.postgres else None
        url = f"sqlite:///{directory}/hearth.db"
        if cluster is not None:
            cluster.create()
            url = cluster.url
        homeserver = await build(test_config(directory, url), reactor, structlog.get_logger())
        try:
            server = TestServer(homeserver, Client(homeserver.router))
            await sleep(reactor, 0.5)
            print(f"{'':36}{'direct':>17}{'in threads':>17}")
            timed = Timed(homeserver.db, cluster, options.count, options.rounds)
            await run_of_clients(server, timed)
        finally:
            await homeserver.stop()
            if cluster is not None:
                cluster.stop("immediate")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    task.react(lambda _: Deferred.fromCoroutine(main(options)))
