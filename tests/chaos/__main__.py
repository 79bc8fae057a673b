"""`python -m tests.chaos`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from scripts.clients import NIO, install
from scripts.run_tests import ROOT
from tests.chaos import scene
from tests.chaos.cast import Cast
from tests.chaos.faults import Faults
from tests.chaos.hosts import Host
from tests.chaos.ledger import Ledger
from tests.chaos.rounds import Rounds
from tests.chaos.servers import Server

QUIET_S = 45.0
"""What a quiet point is expected to take of the time."""


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long, in all")
    parser.add_argument("--round", type=float, default=150, help="seconds between quiet points")
    parser.add_argument("--seed", default="1", help="what chance makes of it")
    parser.add_argument("--clients", type=int, default=20, help="users, of one or two devices")
    parser.add_argument("--hosts", type=int, default=4, help="processes of clients")
    parser.add_argument("--processes", type=int, default=2, help="of each server")
    parser.add_argument("--database", choices=["postgres", "sqlite"], default="postgres")
    parser.add_argument("--rate", type=float, default=1.5, help="messages a second")
    parser.add_argument("--report", type=Path, help="where figures and problems go, as JSON")
    parser.add_argument("--directory", type=Path, help="for logs and stores; it must not exist")
    found = parser.parse_args(arguments)
    if found.database == "sqlite":
        found.processes = 1
    if found.directory is None:
        found.directory = Path(tempfile.mkdtemp(prefix="hearth-chaos-")) / "run"
    return found


class Run:
    """One run."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.begun = time.monotonic()
        directory: Path = given.directory.resolve()
        directory.mkdir(parents=True)
        chance = Random(f"{given.seed} links")
        self.ledger = Ledger()
        self.servers = [
            Server(directory / name, given.database, given.processes, chance)
            for name in ("near", "far")
        ]
        self.hosts: list[Host] = []
        self.cast = Cast(directory / "clients", self.hosts, self.ledger, given.seed)
        self.faults = Faults(self.servers, self.cast, Random(f"{given.seed} faults"), self.say)
        self.figures: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """Tell what happens."""
        print(f"{time.monotonic() - self.begun:7.1f} {text}", flush=True)

    async def play(self) -> None:
        """Everything."""
        given = self.given
        python = install(ROOT / ".venv" / "clients")[NIO]
        for number in range(given.hosts):
            log = given.directory / f"clients-{number}.log"
            self.hosts.append(Host(python, log, self.cast.take))
        self.cast.prepare()
        await asyncio.gather(*(host.start() for host in self.hosts))
        await asyncio.gather(*(server.start() for server in self.servers))
        self.say("the servers are there: " + ", ".join(server.name for server in self.servers))
        await scene.people(self.cast, self.servers, given.clients)
        await scene.rooms(self.cast, self.servers)
        self.say(f"{len(self.cast.devices())} devices, {len(self.cast.rooms)} rooms")
        rounds = Rounds(self.servers, self.cast, self.faults, given.rate, given.seed, self.say)
        await rounds.quiet()
        end = self.begun + given.minutes * 60
        while (left := end - time.monotonic() - QUIET_S) > 5:
            await rounds.play(min(given.round, left))
            self.say(f"{len(self.ledger.messages)} messages; {self._problems()}")
        self.say("the last look")
        self.figures = {**await rounds.last_look()}
        self.figures["quiet points"] = rounds.delays
        self.figures["longest until all was well, in seconds"] = {
            what: round(max(delays.get(what, 0) for delays in rounds.delays), 1)
            for what in rounds.delays[0]
        }
        await self._count()

    def _problems(self) -> str:
        found = {kind: len(each) for kind, each in self.ledger.problems.items()}
        return f"problems: {found}" if found else "no problems"

    async def _count(self) -> None:
        requests: dict[str, int] = {}
        for device in self.cast.devices():
            counts = await self.cast.do(device, "counts")
            for kind, number in counts["counted"].items():
                requests[kind] = requests.get(kind, 0) + number
            for failure in counts["failures"]:
                self.ledger.problem("a server answered 500", failure)
        self.figures |= {
            "requests of the devices left": requests,
            "faults": dict(self.faults.counts),
            "acts": dict(self.cast.counts),
            "answers": dict(self.cast.answers),
            "devices left": len(self.cast.devices()),
            "events read at once": self.ledger.decrypted,
            "keys withheld": self.ledger.withheld,
        }

    async def close(self) -> None:
        """End all processes, and look into the servers' logs."""
        for host in self.hosts:
            await host.kill()
        for server in self.servers:
            statuses = await server.stop()
            if any(statuses):
                self.ledger.problem("a process did not stop well", str(statuses))
            wrong, warnings = server.complaints()
            for line in wrong:
                self.ledger.problem("a server complained", line)
            self.figures[f"warnings of {server.directory.name}"] = dict(warnings.most_common())

    def report(self) -> int:
        """Tell how it went; the exit status."""
        lines = self.ledger.told()
        self.figures["seconds"] = round(time.monotonic() - self.begun)
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.figures["CPU seconds of all children"] = round(cpu.ru_utime + cpu.ru_stime)
        if self.given.report is not None:
            whole = {"figures": self.figures, "problems": self.ledger.problems}
            self.given.report.write_text(json.dumps(whole, indent=2, default=str) + "\n")
        print(json.dumps(self.figures, indent=2, default=str))
        print("\n".join(lines) if lines else "No problems.")
        print(f"Logs: {self.given.directory}")
        return 1 if lines else 0


async def _run(run: Run) -> None:
    try:
        await run.play()
    finally:
        await run.close()


def main() -> int:
    run = Run(options(sys.argv[1:]))
    try:
        asyncio.run(_run(run))
    finally:
        for server in run.servers:
            server.kill()
    return run.report()


if __name__ == "__main__":
    sys.exit(main())
