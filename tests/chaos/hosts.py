"""The processes that run the devices, as seen from the script."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_MAX_LINE = 2**27


class HostGone(Exception):
    """The process ended before it answered."""


class DeviceAbsent(Exception):
    """The device is not there, or was stopped before it had done it."""


class CommandFailed(Exception):
    """The process could not do it; its traceback."""


class Host:
    """One process. `take` gets what devices report."""

    def __init__(self, python: str, log: Path, take: Callable[[dict[str, Any]], None]) -> None:
        self._python = python
        self._log = log
        self._take = take
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start, or start again."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._python,
                str(HERE / "host.py"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_MAX_LINE,
            )
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):
                break  # killed while it wrote
            said = json.loads(line)
            if "report" in said:
                self._take(said)
                continue
            future = self._waiting.pop(said["id"], None)
            if future is None or future.done():
                continue
            if said.get("error") == "absent":
                future.set_exception(DeviceAbsent())
            elif "error" in said:
                future.set_exception(CommandFailed(said["error"]))
            else:
                future.set_result(said["ok"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(HostGone())
        self._waiting.clear()

    async def do(self, device: str, command: str, /, **arguments: Any) -> Any:
        """Have a device do something. Raises HostGone, DeviceAbsent, CommandFailed."""
        if self._process is None or self._process.returncode is not None:
            raise HostGone
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        line = json.dumps({"id": number, "device": device, "do": command, **arguments})
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # then reading ends as well
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        return await future

    async def kill(self) -> None:
        """SIGKILL. All that it told before is taken."""
        if self._process is None or self._reading is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading
