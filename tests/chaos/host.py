"""A process with several devices, told what to do by lines of JSON, and telling what happens.

{"id": N, "device": NAME, "do": NAME, ...} is answered {"id": N, "ok": RESULT} or {"id": N,
"error": TEXT} (absent: the device is not there, or was stopped meanwhile), in any order;
{"report": KIND, "device": NAME, ...} comes by itself.
Runs where Hearth's own packages are not: it imports nothing of them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from random import Random
from typing import Any

from device import Device  # type: ignore[import-not-found, unused-ignore]
from device_http import Asking  # type: ignore[import-not-found, unused-ignore]


class Absent(Exception):
    """The device is not there."""


class Host:
    """The devices of this process."""

    def __init__(self) -> None:
        self._devices: dict[str, Any] = {}
        self._lives = 0

    def write(self, line: dict[str, Any]) -> None:
        """Tell something. A pipe outlives its writer: nothing told is lost by SIGKILL."""
        os.write(1, json.dumps(line).encode() + b"\n")

    async def begin(
        self,
        name: str,
        urls: list[str],
        user: str,
        password: str,
        device_id: str,
        directory: str,
        seed: str,
        drop_rate: float,
    ) -> dict[str, str]:
        """Start a device, or go on with it."""
        if name in self._devices:
            await self._devices.pop(name).end()
        self._lives += 1
        life = f"{os.getpid()}.{self._lives}"

        def report(kind: str, **what: Any) -> None:
            self.write({"report": kind, "device": name, "life": life, **what})

        place = Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        chance = Random(seed)
        device = Device(Asking(urls, chance, drop_rate), place, report, chance)
        try:
            found: dict[str, str] = await device.begin(user, password, device_id)
        except BaseException:
            await device.end()
            raise
        self._devices[name] = device
        return found

    async def end(self, name: str) -> bool:
        """Stop a device; its store stays."""
        device = self._devices.pop(name, None)
        if device is not None:
            await device.end()
        return True

    async def logout(self, name: str) -> bool:
        """Give a device up."""
        device = self._devices.pop(name, None)
        if device is None:
            raise Absent
        return bool(await device.logout())

    async def _have(self, device: Any, what: str, command: dict[str, Any]) -> Any:
        """Have a device do something, which ends with it. Raises Absent, CancelledError."""
        if device is None:
            raise Absent
        task = asyncio.current_task()
        device.commands.add(task)
        try:
            return await getattr(device, what)(**command)
        finally:
            device.commands.discard(task)

    async def obey(self, command: dict[str, Any]) -> None:
        """Carry a command out, and answer it."""
        number, name, what = command.pop("id"), command.pop("device"), command.pop("do")
        try:
            if what in ("begin", "end", "logout"):
                result = await getattr(self, what)(name, **command)
            else:
                result = await self._have(self._devices.get(name), what, command)
            answer: dict[str, Any] = {"id": number, "ok": result}
        except (Absent, asyncio.CancelledError):
            answer = {"id": number, "error": "absent"}
        except Exception:
            answer = {"id": number, "error": traceback.format_exc()}
        self.write(answer)

    async def serve(self) -> None:
        """Read commands until there are no more."""
        reader = asyncio.StreamReader(limit=2**24)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        tasks: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            task = asyncio.create_task(self.obey(json.loads(line)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        os._exit(0)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    gc.freeze()
    asyncio.run(Host().serve())
