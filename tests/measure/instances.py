"""Servers that are measured: real processes on databases of their own."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import yaml

from tests.interop.servers import INTEROP, HearthServer, Server, SynapseServer
from tests.measure import machine
from tests.measure.client import MeasuringClient
from tests.support.services import PostgresCluster

_DURABLE = """
fsync = on
full_page_writes = on
shared_buffers = 128MB
max_wal_size = 1GB
autovacuum_naptime = 1min
"""


class Instance:
    """A server process, and PostgreSQL for it alone where it is to have one."""

    def __init__(self, kind: str, directory: Path, postgres: bool, **options: Any) -> None:
        directory.mkdir(parents=True)
        directory.chmod(0o755)
        self.kind = kind
        self._sqlite = directory / "hearth.db"
        self.cluster: PostgresCluster | None = None
        if postgres:
            self.cluster = PostgresCluster(directory / "cluster")
            self.cluster.create()
            self.cluster.stop()
            with (self.cluster.data / "postgresql.conf").open("a") as conf:
                conf.write(_DURABLE)
            self.cluster.start()
        make = self._synapse if kind == "synapse" else self._hearth
        self.server: Server = make(directory / "server", options)

    @property
    def database_url(self) -> str:
        """Hearth's."""
        if self.cluster is not None:
            return self.cluster.url
        return f"sqlite:///{self._sqlite.absolute()}"

    def _hearth(self, directory: Path, options: dict[str, Any]) -> Server:
        log = {"level": "warning"}
        server = HearthServer(directory, log=log, **options)
        server._process.options["database"] = {"url": self.database_url}
        return server

    def _synapse(self, directory: Path, options: dict[str, Any]) -> Server:
        server = SynapseServer(directory)
        path = server.directory / "homeserver.yaml"
        settings = yaml.safe_load(path.read_text("utf-8"))
        if self.cluster is not None:
            host, _, port = self.cluster.url.partition("@")[2].partition("/")[0].partition(":")
            arguments = {"user": "hearth", "dbname": "postgres", "host": host, "port": int(port)}
            settings["database"] = {
                "name": "psycopg2",
                "args": {**arguments, "cp_min": 5, "cp_max": 10},
                "allow_unsafe_locale": True,
            }
        settings["federation"] = {}
        settings.update(options)
        path.write_text(yaml.safe_dump(settings), "utf-8")
        log = server.directory / "log.yaml"
        log.write_text(log.read_text("utf-8").replace("level: INFO", "level: WARNING"), "utf-8")
        return server

    @property
    def pid(self) -> int:
        process = getattr(self.server, "_process")  # noqa: B009
        return int(process.pid)

    @property
    def metrics_port(self) -> int:
        """Where Hearth tells its metrics."""
        process = getattr(self.server, "_process")  # noqa: B009
        return int(process.own_port)

    def used(self) -> float:
        """CPU seconds of the server and of its database."""
        return self.used_by_server() + self.used_by_database()

    def used_by_server(self) -> float:
        return machine.cpu_seconds(machine.tree(self.pid))

    def used_by_database(self) -> float:
        if self.cluster is None:
            return 0.0
        postmaster = int((self.cluster.data / "postmaster.pid").read_text().splitlines()[0])
        return machine.cpu_seconds(machine.tree(postmaster))

    async def start(self) -> None:
        """Start, and wait until it answers and is quiet."""
        self.server.spawn()
        client = MeasuringClient(self.server.client_port)
        deadline = time.monotonic() + 120
        while True:
            try:
                await client.call("GET", "/login")
                break
            except (OSError, asyncio.IncompleteReadError):
                if self.server.has_ended() or time.monotonic() > deadline:
                    raise RuntimeError(self.server.log()[-3000:]) from None
                await asyncio.sleep(0.1)
        client.close()
        await self.quiet()

    async def quiet(self) -> None:
        await machine.quiet(self.used)

    async def register(self, name: str) -> MeasuringClient:
        return await MeasuringClient.register(self.server.client_port, name)

    def close(self) -> None:
        """End the server and its database."""
        self.server.kill()
        if self.cluster is not None:
            self.cluster.stop("immediate")


def use_synapse(python: str) -> None:
    """Say which Python has Synapse."""
    os.environ[INTEROP] = python
