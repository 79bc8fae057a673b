"""What the measurements of federation share: the residents, and instances of both servers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.interop.servers import certificate
from tests.measure.instances import Instance
from tests.support.network import ca_file
from tests.support.process import ROOT, environment


class ResidentsProcess:
    """`tests.measure.resident` as a process; `names` are the servers that it plays."""

    def __init__(self, directory: Path, servers: int) -> None:
        directory.mkdir(parents=True)
        chain, key = certificate(directory)
        module = "tests.measure.resident"
        command = [sys.executable, "-m", module, str(chain), str(key), str(ca_file())]
        self._process = subprocess.Popen(
            [*command, str(servers)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self.names = self._process.stdout.readline().decode().split()

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, what: str, **body: Any) -> Any:
        """Have something done; see `tests.measure.resident.Control`."""
        url = f"http://127.0.0.1:{self._port}/{what}"
        request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=600) as answer:
            found = json.loads(answer.read())
        if "error" in found:
            raise RuntimeError(f"{what}: {found['error']}")
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Lab:
    """Parameters: `directory` for all files; `kinds`, which servers; `databases`, on what."""

    directory: Path
    kinds: tuple[str, ...] = ("hearth",)
    databases: tuple[str, ...] = ("postgres",)
    rounds: int = 1
    profile: bool = False
    figures: list[dict[str, Any]] = field(default_factory=list)
    _count: int = 0

    def new_directory(self, name: str) -> Path:
        self._count += 1
        return self.directory / f"{self._count}-{name}"

    def residents(self, servers: int) -> ResidentsProcess:
        return ResidentsProcess(self.new_directory("residents"), servers)

    @contextlib.asynccontextmanager
    async def instance(self, kind: str, database: str, **options: Any) -> AsyncIterator[Instance]:
        """A server that runs and is quiet; ended afterwards."""
        directory = self.new_directory(f"{kind}-{database}")
        server = Instance(kind, directory, database == "postgres", **options)
        try:
            await server.start()
            yield server
        finally:
            server.close()

    def report(self, what: str, kind: str, database: str, **figures: float) -> None:
        """Print figures and keep them."""
        self.figures.append({"what": what, "kind": kind, "database": database, **figures})
        text = "  ".join(f"{name} {value:.5g}" for name, value in figures.items())
        print(f"{what:<13}{kind:<8}{database:<9}{text}", flush=True)

    def summary(self) -> None:
        """The least of each figure over the rounds, and Hearth in parts of Synapse."""
        least: dict[tuple[str, str, str], dict[str, float]] = {}
        for row in self.figures:
            key = (row["what"], row["database"], row["kind"])
            kept = least.setdefault(key, {})
            for name, value in row.items():
                if isinstance(value, (int, float)):
                    kept[name] = min(value, kept.get(name, value))
        print("\nLeast of all rounds; Hearth / Synapse where both were measured")
        for (what, database, kind), figures in least.items():
            for name, value in figures.items():
                other = least.get((what, database, "synapse"), {}).get(name)
                ratio = f"{value / other:8.3f}" if other and kind == "hearth" else ""
                print(f"{what:<13}{database:<9}{kind:<8}{name:<28}{value:10.4g}{ratio}")
