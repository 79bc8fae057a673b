"""CPU of small reads: `python -m tests.measure.queries [--postgres] [--count N] [--rounds N]`.

Each query runs without a thread (`Database.query`) and in one (`Database.read`), in turns: one
after the other, and ten at a time. Prints microseconds of CPU for each: of this process with all
its threads, and of PostgreSQL's; the least of the rounds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from storage import account_data, memberships, migrate, profiles, tokens, user_news
from storage.database import Database, backend_for, open_database, sleep
from tests.support.services import PostgresCluster

reactor: Any = installed
USER = "@user:measured.example"
QUERIES: dict[str, tuple[Any, ...]] = {
    "token": (tokens.get_access_token, b"0" * 32),
    "account data": (account_data.get, USER, "", "org.example.type"),
    "profile": (profiles.of_active, USER),
    "rooms": (memberships.joined_rooms, USER),
    "newest": (user_news.newest, USER, "DEVICE"),
}
Asking = Callable[[], Awaitable[object]]


def used_by_database(pids: list[int]) -> float:
    """Seconds of CPU of these processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def spent(count: int, at_once: int, ask: Asking, pids: list[int]) -> tuple[float, float]:
    """Microseconds of CPU for each of `count` questions: here, and of the database."""

    async def one_after_the_other() -> None:
        for _ in range(count // at_once):
            await ask()

    here, there = time.process_time(), used_by_database(pids)
    await gatherResults([Deferred.fromCoroutine(one_after_the_other()) for _ in range(at_once)])
    here, there = time.process_time() - here, used_by_database(pids) - there
    return here * 1e6 / count, there * 1e6 / count


async def measure(db: Database, count: int, rounds: int) -> None:
    """Print what each query costs."""
    pids: list[int] = []
    if db.dialect.name == "postgres":
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        for query in [QUERIES["token"]] * 50:
            await gatherResults([Deferred.fromCoroutine(db.query(*query)) for _ in range(10)])
            await gatherResults([Deferred.fromCoroutine(db.read(*query)) for _ in range(10)])
            await sleep(reactor, 0.01)
        pids = [row[0] for row in await db.read(lambda txn: txn.all(sql))]
    print(f"{'':24}{'query':>18}{'read':>18}")
    for name, query in QUERIES.items():
        ways: list[Asking] = [
            lambda query=query: db.query(*query),  # type: ignore[misc]
            lambda query=query: db.read(*query),  # type: ignore[misc]
        ]
        for at_once in (1, 10):
            found: list[list[tuple[float, float]]] = [[], []]
            for _ in range(rounds):
                for way, results in zip(ways, found, strict=True):
                    results.append(await spent(count, at_once, way, pids))
            least = [(min(r[0] for r in each), min(r[1] for r in each)) for each in found]
            columns = "".join(f"{here:9.1f} +{there:7.1f}" for here, there in least)
            print(f"{name + ', ' + str(at_once) + ' at once':24} {columns}", flush=True)
    print(f"without a thread: {db.queries.direct.total()}, in one: {db.queries.thread.total()}")


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cluster = PostgresCluster(Path(directory)) if options.postgres else None
        url = f"sqlite:///{directory}/hearth.db"
        if cluster is not None:
            cluster.create()
            url = cluster.url
        try:
            session = backend_for(url).connect(writable=True)
            migrate.migrate(session, migrate.find())
            session.close()
            db = await open_database(url, reactor=reactor)
            await measure(db, options.count, options.rounds)
            await db.close()
        finally:
            if cluster is not None:
                cluster.stop("immediate")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    task.react(lambda _: Deferred.fromCoroutine(main(options)))
