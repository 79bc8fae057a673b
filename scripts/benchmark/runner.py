"""The rounds: each workload on one server, then on the other, and so on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.benchmark import readings, servers
from scripts.benchmark.context import Context
from scripts.benchmark.options import Options
from scripts.benchmark.residents import Residents
from scripts.benchmark.workloads import WORKLOADS, Workload

Document = dict[str, Any]
"""What a result file holds."""


def log(message: str) -> None:
    """Tell whoever watches."""
    print(f"{datetime.now():%H:%M:%S} {message}", file=sys.stderr, flush=True)


class Runner:
    """Runs the chosen workloads; `document` holds what was measured so far.

    Parameters: `directory` for the servers' files; `written` is called after every workload.
    """

    def __init__(
        self,
        options: Options,
        directory: Path,
        synapse_python: str | None,
        written: Callable[[Document], None],
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._options = options
        self._written = written
        postgres = options.database == "postgres"
        self._residents = Residents(directory / "residents", options.sizes.remote_servers)
        pythons = {servers.Hearth.kind: sys.executable}
        if synapse_python is not None:
            pythons[servers.Synapse.kind] = synapse_python
        self._contexts = [
            Context(
                kind,
                directory,
                options.sizes,
                postgres=postgres,
                python=python,
                residents=self._residents,
                log=log,
            )
            for kind, python in pythons.items()
        ]
        self.document: Document = {
            "format": 1,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "preset": options.preset,
            "rounds": options.rounds,
            "database": options.database,
            "sizes": asdict(options.sizes),
            "machine": readings.describe_machine(),
            "servers": servers.versions(synapse_python),
            "libraries": servers.libraries(postgres),
            "loop_ms": {kind: readings.loop_ms(python) for kind, python in pythons.items()},
            "runs": [],
        }

    async def run(self) -> None:
        """Run all of them; a workload that fails is noted. All processes end with it."""
        try:
            for name in self._options.workloads:
                await self._workload(name, WORKLOADS[name])
        finally:
            self.close()

    def close(self) -> None:
        """End all processes."""
        for context in self._contexts:
            context.close()
        self._residents.close()

    async def _workload(self, name: str, workload: Workload) -> None:
        rounds = 1 if workload.once else self._options.rounds
        for number in range(1, rounds + 1):
            for context in self._contexts:
                if context.kind not in workload.kinds:
                    continue
                log(f"{name}, round {number} of {rounds}: {context.kind}")
                run = {"workload": name, "server": context.kind, "round": number}
                self.document["runs"].append(run)
                await self._turn(context, workload, run)
        self._written(self.document)

    async def _turn(self, context: Context, workload: Workload, run: dict[str, Any]) -> None:
        status, started = "failed: interrupted", time.perf_counter()
        try:
            async with asyncio.timeout(context.sizes.workload_timeout_s):
                await workload.run(context)
            status = "ok"
        except Exception as error:
            status = f"failed: {reason(error)}"
            log(f"  {status}")
        finally:
            seconds = time.perf_counter() - started
            run |= {"status": status, "seconds": round(seconds, 2), **context.take()}


def reason(error: BaseException) -> str:
    """One line about why a workload failed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__
