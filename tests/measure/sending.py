"""CPU time of sending: `python -m tests.measure.sending [--database NAME] [--senders N] ...`.

A server process with everything on, its database, and clients that each send one message after
the other: one alone, all in one room, and each in a room of their own. Prints milliseconds of CPU
of the server and of its database for each message, the least of the rounds, and how many were
acknowledged a second. `--spy PROGRAM` has py-spy write what the server does meanwhile into a file
for each phase.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.measure.instances import Instance

_CLASSES = ("message", "join", "create_room", "registration")
_FREE = {"per_second": 100_000, "burst": 100_000}
_COUNT = re.compile(r"hearth_(?:database_transaction_seconds|commit_events)_count(\S+) (\S+)")
Send = Callable[[int, int], Awaitable[object]]


class Measurement:
    """See the module."""

    def __init__(self, server: Instance, options: argparse.Namespace) -> None:
        self._server = server
        self._options = options
        self._least: dict[str, list[float]] = {}

    async def run(self) -> None:
        count = self._options.senders
        users = [await self._server.register(f"user{number}") for number in range(count)]
        shared = await users[0].create_room()
        for user in users[1:]:
            await user.join(shared)
        own = [await user.create_room() for user in users]
        sends: dict[str, tuple[int, int, Send]] = {
            "one": (1, 400, lambda _, n: users[0].send(own[0], f"message {n}")),
            "shared": (count, 3000, lambda w, n: users[w].send(shared, f"message {n}")),
            "own rooms": (count, 3000, lambda w, n: users[w].send(own[w], f"message {n}")),
        }
        for workers, _, send in sends.values():
            await _closed_loop(workers, workers * 20, send)
        await self._server.quiet()
        for _ in range(self._options.rounds):
            for name, (workers, number, send) in sends.items():
                if name in self._options.only.split(","):
                    await self._phase(name, workers, number, send)

    async def _phase(self, name: str, workers: int, number: int, send: Send) -> None:
        spy = self._spy(name)
        counts = self._transactions()
        server, database = self._server.used_by_server(), self._server.used_by_database()
        began = time.monotonic()
        waited = await _closed_loop(workers, number, send)
        took = time.monotonic() - began
        server = (self._server.used_by_server() - server) / number * 1000
        database = (self._server.used_by_database() - database) / number * 1000
        if spy is not None:
            spy.wait()
        if self._options.transactions:
            for what, times in (self._transactions() - counts).most_common():
                print(f"    {times / number:7.3f} {what}")
        best = self._least.setdefault(name, [server, database, waited, 0.0])
        best[:] = [*map(min, best, (server, database, waited)), max(best[3], number / took)]
        print(
            f"{name:<10} server {server:.3f} ms, database {database:.3f} ms, median wait"
            f" {waited * 1000:.2f} ms, {number / took:.0f}/s; best so far {best[0]:.3f}"
            f" + {best[1]:.3f} ms, {best[2] * 1000:.2f} ms, {best[3]:.0f}/s",
            flush=True,
        )

    def _transactions(self) -> Counter[str]:
        """How often each kind of transaction has run, with commits by the way they went."""
        if not self._options.transactions:
            return Counter()
        url = f"http://127.0.0.1:{self._server.metrics_port}/metrics"
        found: Counter[str] = Counter()
        with urllib.request.urlopen(url, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                match = _COUNT.fullmatch(line)
                if match is not None:
                    found[match[1]] = int(float(match[2]))
        return found

    def _spy(self, name: str) -> subprocess.Popen[bytes] | None:
        if not self._options.spy:
            return None
        output = Path(self._options.spy_to) / f"{name.replace(' ', '-')}.txt"
        return subprocess.Popen(
            [self._options.spy, "record", "-p", str(self._server.pid), "-f", "raw", "-r", "400"]
            + ["-d", "4", "--gil", "-t", "-o", str(output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


async def _closed_loop(workers: int, number: int, send: Send) -> float:
    """Send `number` messages, each worker one after the other; the median of the waits."""
    left = iter(range(number))
    waits: list[float] = []

    async def work(worker: int) -> None:
        for n in left:
            began = time.monotonic()
            await send(worker, n)
            waits.append(time.monotonic() - began)

    await asyncio.gather(*map(work, range(workers)))
    return sorted(waits)[len(waits) // 2]


async def _main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        server = Instance(
            "hearth",
            Path(directory) / "hearth",
            options.database == "postgres",
            rate_limits={"enabled": True, **dict.fromkeys(_CLASSES, _FREE)},
        )
        try:
            await server.start()
            await Measurement(server, options).run()
        finally:
            server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--senders", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="one,shared,own rooms")
    parser.add_argument("--transactions", action="store_true", help="count them by name")
    parser.add_argument("--spy", default="", help="the program py-spy")
    parser.add_argument("--spy-to", default=".")
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
