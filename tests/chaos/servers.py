"""Two servers of one or several processes each, with links between them."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.links import Link
from tests.support.databases import administer, postgres_url
from tests.support.federated_process import FederatedProcess
from tests.support.services import RedisServer

PASSWORD = "wonderland"
READY_S = 240.0


class Server:
    """A homeserver: its processes, and the link by which the other one reaches it."""

    def __init__(self, directory: Path, kind: str, processes: int, chance: Random) -> None:
        self.directory = directory
        self.link = Link(chance)
        self.name = self.link.name
        self.redis: RedisServer | None = None
        self.busy: set[FederatedProcess] = set()
        """Processes that a fault has in its hands."""
        directory.mkdir(parents=True)
        shared: dict[str, Any] = {
            "data_directory": str(directory / "data"),
            "log": {"format": "json"},
        }
        if kind == "postgres":
            database = f"chaos_{directory.name}"
            administer(f"CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8'")
            self.redis = RedisServer(directory)
            self.redis.create()
            shared["database"] = {"url": postgres_url().rpartition("/")[0] + "/" + database}
            shared["redis"] = {"url": self.redis.url}
        self.processes = [
            FederatedProcess(directory / f"process-{number}", self.name, shared)
            for number in range(processes)
        ]

    @property
    def urls(self) -> list[str]:
        """Where clients find it."""
        return [process.url for process in self.processes]

    async def start(self) -> None:
        """Start all, one after the other: the first makes keys and tables."""
        for process in self.processes:
            await asyncio.to_thread(process.start)
        await self.link.serve(self.processes)

    async def revive(self, process: FederatedProcess) -> None:
        """Start a process that ended. Raises AssertionError."""
        await asyncio.to_thread(process.start, ready_within=READY_S)

    async def heal(self) -> None:
        """Everything runs, and the link is whole. Raises AssertionError."""
        self.link.heal()
        for process in self.processes:
            if process.has_ended:
                await self.revive(process)

    async def stop(self) -> list[int | None]:
        """Stop all processes, cleanly; their statuses, None for one that had to be killed."""
        found: list[int | None] = []
        for process in self.processes:
            if process.has_ended:
                found.append(None)
                continue
            process.signal(signal.SIGTERM)
            try:
                found.append(await asyncio.to_thread(process.wait, 40.0))
            except Exception:
                process.kill()
                found.append(None)
        await self.link.close()
        if self.redis is not None:
            self.redis.stop()
        return found

    def kill(self) -> None:
        """End everything at once."""
        for process in self.processes:
            process.kill()
        if self.redis is not None:
            self.redis.stop()

    async def register(self, user: str) -> str:
        """Make a user; the user ID."""
        body = {
            "username": user,
            "password": PASSWORD,
            "inhibit_login": True,
            "auth": {"type": "m.login.dummy"},
        }
        status, text = await asyncio.to_thread(
            self.processes[0].request, "POST", "/_matrix/client/v3/register", body
        )
        assert status == 200, text
        found: str = json.loads(text)["user_id"]
        return found

    def complaints(self) -> tuple[list[str], Counter[str]]:
        """What processes logged that they should not have, and their warnings by kind."""
        wrong: list[str] = []
        warnings: Counter[str] = Counter()
        for process in self.processes:
            for line in process.log().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    wrong.append(f"{process.directory}: {line[:300]}")
                    continue
                if entry["level"] == "error" or "traceback" in entry or entry.get("status") == 500:
                    wrong.append(f"{process.directory}: {line[:1500]}")
                elif entry["level"] == "warning":
                    warnings[entry["event"]] += 1
        return wrong, warnings


async def state_of(process: FederatedProcess, room: str, token: str) -> dict[str, str]:
    """A room's current state as one process tells it: event IDs by type and key."""
    path = f"/_matrix/client/v3/rooms/{room}/state"
    status, text = await asyncio.to_thread(process.request, "GET", path, None, token)
    assert status == 200, text
    return {f"{each['type']} {each['state_key']}": each["event_id"] for each in json.loads(text)}
