"""Who there is: users, their devices and rooms, and what they do by themselves."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.hosts import CommandFailed, DeviceAbsent, Host, HostGone
from tests.chaos.ledger import Ledger
from tests.chaos.servers import PASSWORD, Server

MAX_DEVICES = 2
ROTATE = 0.15
"""How often a message begins a new session."""
DROP_RATE = 0.02


@dataclass
class User:
    """A user. `devices`: those that there are, named `user ID/device ID`, with their tokens."""

    name: str
    user_id: str
    server: Server
    host: Host
    devices: dict[str, str] = field(default_factory=dict)
    rooms: set[str] = field(default_factory=set)
    guest_of: set[str] = field(default_factory=set)
    """Rooms that the user enters and leaves."""
    made: int = 0
    busy: bool = False


class Cast:
    """All users. What they do is counted in `counts`."""

    def __init__(self, directory: Path, hosts: list[Host], ledger: Ledger, seed: str) -> None:
        self.directory = directory
        directory.mkdir()
        self.trace = (directory / "reports.jsonl").open("w", encoding="utf-8")
        self.hosts = hosts
        self.ledger = ledger
        self.users: list[User] = []
        self.rooms: dict[str, str] = {}
        """Names by ID."""
        self.counts: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._seed = seed
        self._chance = Random(f"{seed} life")
        self._talk = Random(f"{seed} talk")
        self._said = 0
        self._reviving: dict[Host, asyncio.Lock] = {}
        self.speaking: set[str] = set()

    def prepare(self) -> None:
        """The processes of devices are there."""
        self._reviving = {host: asyncio.Lock() for host in self.hosts}

    # Devices.

    def user_of(self, device: str) -> User:
        """Whose a device is."""
        user_id = device.rpartition("/")[0]
        return next(user for user in self.users if user.user_id == user_id)

    async def do(self, device: str, command: str, /, **arguments: Any) -> Any:
        """Have a device do something; again if it was stopped or killed."""
        host = self.user_of(device).host
        while True:
            try:
                return await host.do(device, command, **arguments)
            except (HostGone, DeviceAbsent):
                await asyncio.sleep(0.2)

    async def _begin(self, user: User, device: str) -> None:
        device_id = device.rpartition("/")[2]
        self.counts["starts of devices"] += 1
        found = await user.host.do(
            device,
            "begin",
            urls=user.server.urls,
            user=user.name,
            password=PASSWORD,
            device_id=device_id,
            directory=str(self.directory / f"{user.name}-{device_id}"),
            seed=f"{self._seed} {device} {self.counts['starts of devices']}",
            drop_rate=DROP_RATE,
        )
        user.devices[device] = found["token"]

    async def new_device(self, user: User) -> str:
        """Log in with a new device."""
        user.made += 1
        # nio takes every device with the ID of its own for its own, whoever's it is.
        device = f"{user.user_id}/{user.name.upper()}D{user.made}"
        while True:
            try:
                await self._begin(user, device)
            except HostGone:
                await asyncio.sleep(0.5)
            else:
                return device

    async def crash(self, host: Host) -> None:
        """Kill a process of devices, start it again, and go on from their stores."""
        async with self._reviving[host]:
            await host.kill()
            self.counts["clients' processes killed"] += 1
            await asyncio.sleep(self._chance.uniform(0.1, 5))
            await host.start()
            mine = [user for user in self.users if user.host is host]
            await asyncio.gather(
                *(self._begin(user, device) for user in mine for device in list(user.devices))
            )

    # What users do.

    async def say(self, device: str, room: str, rotate: bool) -> None:
        """Send a message, unless the device is still at the last one."""
        if device in self.speaking:
            self.counts["times that a device was not ready to speak"] += 1
            return
        self.speaking.add(device)
        self._said += 1
        try:
            await self.user_of(device).host.do(
                device, "say", room_id=room, body=f"message {self._said}", rotate=rotate
            )
        except (HostGone, DeviceAbsent):
            self.counts["clients stopped while they sent"] += 1
        except CommandFailed as failure:
            self.ledger.problem("a client could not send", f"{device}: {failure}")
        finally:
            self.speaking.discard(device)

    def speaker(self) -> tuple[str, str, bool] | None:
        """Who speaks next, in which room, and whether with a new session."""
        user = self._talk.choice(self.users)
        rotate = self._talk.random() < ROTATE
        which, where = self._talk.random(), self._talk.random()
        if not user.devices or not user.rooms:
            return None
        devices, rooms = sorted(user.devices), sorted(user.rooms)
        return devices[int(which * len(devices))], rooms[int(where * len(rooms))], rotate

    async def live(self) -> None:
        """Something that changes who is there."""
        act = self._chance.choices(
            [self._move, self._add, self._remove, self._restart], [6, 3, 2.5, 4]
        )[0]
        user = self._chance.choice(self.users)
        if not user.busy and user.devices:
            await self._while_busy(user, lambda: act(user))

    async def _while_busy(self, user: User, act: Callable[[], Awaitable[None]]) -> None:
        user.busy = True
        try:
            async with self._reviving[user.host]:
                await act()
        except HostGone:
            self.counts["clients killed while they did something"] += 1
        finally:
            user.busy = False

    async def _move(self, user: User) -> None:
        if not user.guest_of:
            return
        room = self._chance.choice(sorted(user.guest_of))
        if room in user.rooms:
            await self.leave(user, room)
        else:
            await self.join(user, room)

    async def leave(self, user: User, room: str) -> None:
        """Leave a room."""
        user.rooms.discard(room)
        for device in user.devices:
            self.ledger.release(device, room)
        status, answer = await self.do(min(user.devices), "leave", room_id=room)
        self.counts["leaves"] += 1
        if status != 200 and answer.get("errcode") != "M_FORBIDDEN":
            self.ledger.problem("a room could not be left", f"{user.user_id}, {room}: {answer}")

    async def join(self, user: User, room: str) -> None:
        """Enter a room; tried until it is done."""
        via = sorted({each.server.name for each in self.users if room in each.rooms})
        status, answer = await self.do(min(user.devices), "join", room_id=room, via=via)
        self.counts["joins"] += 1
        self.answers[f"join {status} {answer.get('errcode', '')}"] += 1
        if status == 200:
            user.rooms.add(room)
            for device in user.devices:
                self.ledger.enter(device, room)

    async def _add(self, user: User) -> None:
        if len(user.devices) < MAX_DEVICES:
            await self.new_device(user)
            self.counts["new devices"] += 1

    async def _remove(self, user: User) -> None:
        if len(user.devices) < 2:
            return
        device = self._chance.choice(sorted(user.devices))
        del user.devices[device]
        self.ledger.release(device)
        await user.host.do(device, "logout")
        self.counts["devices given up"] += 1

    async def _restart(self, user: User) -> None:
        device = self._chance.choice(sorted(user.devices))
        await user.host.do(device, "end")
        await asyncio.sleep(self._chance.uniform(0, 3))
        await self._begin(user, device)
        self.counts["devices restarted"] += 1

    # What there is.

    def devices_in(self, room: str) -> list[str]:
        """The devices of a room's members."""
        return sorted(d for user in self.users if room in user.rooms for d in user.devices)

    def devices(self) -> list[str]:
        """All devices."""
        return sorted(device for user in self.users for device in user.devices)

    def truth(self, room: str) -> dict[str, list[str]]:
        """The device IDs of a room's members."""
        return {
            user.user_id: sorted(device.rpartition("/")[2] for device in user.devices)
            for user in self.users
            if room in user.rooms
        }

    def take(self, report: dict[str, Any]) -> None:
        """Give a device's report to the ledger, and keep it."""
        self.trace.write(json.dumps({"at": round(time.monotonic(), 3), **report}) + "\n")
        self.ledger.take(report, time.monotonic())
