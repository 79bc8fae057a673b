"""The course of a run: rounds of chaos, each with a quiet point behind it, and a last look."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from tests.chaos.cast import Cast
from tests.chaos.faults import Faults, Say
from tests.chaos.ledger import Copy, Message
from tests.chaos.servers import Server, state_of

CALM_S = 300.0
"""Within which everything must be as it should, once nothing is broken any more."""
PULSE_S = 4.0
LOOK_AGAIN_S = 15.0


class Rounds:
    """Plays rounds. `delays`: for each quiet point, the seconds until all was well."""

    def __init__(
        self,
        servers: Sequence[Server],
        cast: Cast,
        faults: Faults,
        rate: float,
        seed: str,
        say: Say,
    ) -> None:
        self._servers = servers
        self._cast = cast
        self._ledger = cast.ledger
        self._faults = faults
        self._rate = rate
        self._chance = Random(f"{seed} pace")
        self._say = say
        self._tasks: set[asyncio.Task[None]] = set()
        self.delays: list[dict[str, float]] = []

    def _spawn(self, coroutine: Any) -> None:
        self._tasks.add(task := asyncio.create_task(self._guarded(coroutine)))
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, coroutine: Any) -> None:
        try:
            await coroutine
        except Exception as error:
            self._ledger.problem("the script failed", repr(error))

    async def play(self, seconds: float) -> None:
        """One round: chaos for so long, then healing, a quiet point, and a roll call."""
        talking = asyncio.create_task(self._talk())
        living = asyncio.create_task(self._live())
        await self._faults.run(seconds)
        for task in (talking, living):
            task.cancel()
        await self.heal()
        await self.quiet()

    async def _talk(self) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(self._rate))
            speaker = self._cast.speaker()
            if speaker is not None:
                self._spawn(self._cast.say(*speaker))

    async def _live(self) -> None:
        pace = Random(f"{self._chance.random()} life")
        while True:
            await asyncio.sleep(pace.expovariate(0.35))
            self._spawn(self._cast.live())

    async def heal(self) -> None:
        """Nothing is broken any more."""
        for server in self._servers:
            try:
                await server.heal()
            except AssertionError as error:
                self._ledger.problem("a process did not start", str(error)[-2000:])

    async def quiet(self) -> None:
        """Wait until all is well, then have everybody speak everywhere."""
        loop = asyncio.get_running_loop()
        healed = loop.time()
        delays: dict[str, float] = {}
        # What people began they bring to its end.
        while self._tasks and loop.time() < healed + CALM_S:
            _, left = await asyncio.wait(list(self._tasks), timeout=5)
            if left:
                self._say(f"not yet: {len(left)} requests")
        delays["requests answered"] = loop.time() - healed
        pulse = asyncio.create_task(self._pulse())
        await self._until_calm(healed, delays)
        pulse.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pulse
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        for room in self._cast.rooms:
            self._ledger.settle(room, self._cast.devices_in(room))
        called = loop.time()
        await self.roll_call()
        await self._until_calm(called, delays, "roll call ")
        self.delays.append(delays)
        self._say("quiet: " + ", ".join(f"{what} {s:.1f} s" for what, s in delays.items()))

    async def _pulse(self) -> None:
        """Somebody of each server speaks, as on any server with people."""
        turn = itertools.cycle(self._cast.users)
        while True:
            for server in self._servers:
                user = next(u for u in turn if u.server is server and u.devices)
                room = min(self._cast.rooms)
                self._spawn(self._cast.say(min(user.devices), room, False))
            await asyncio.sleep(PULSE_S)

    async def _until_calm(self, since: float, delays: dict[str, float], prefix: str = "") -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            wrong = {
                "devices known": await self._strangers(),
                "keys delivered": [str(share) for share in self._ledger.unsent()],
                "messages read": [_unread(m) for m in self._ledger.unread() if m.acked_at < looked],
            }
            now = loop.time()
            for what, lines in wrong.items():
                if lines:
                    delays.pop(prefix + what, None)
                else:
                    delays.setdefault(prefix + what, now - since)
            if not any(wrong.values()):
                return
            if now > since + CALM_S:
                for what, lines in wrong.items():
                    for line in lines:
                        self._ledger.problem(
                            f"not so {CALM_S:g} s after all was mended: {what}", line
                        )
                self._ledger.forget_unread()
                return
            if now > looked + LOOK_AGAIN_S:
                looked = now
                for what, lines in wrong.items():
                    if lines:
                        self._say(f"not yet: {what}, {len(lines)}, such as {lines[0]}")
                await self._look_again()
            await asyncio.sleep(0.5)

    async def _look_again(self) -> None:
        """Clients that forgot what they could not read yet look at it again."""
        for message in self._ledger.unread():
            for device in sorted(message.waiting):
                if message.event_id is not None:
                    await self._cast.do(
                        device, "look", room_id=message.room, event_id=message.event_id
                    )

    async def _strangers(self) -> list[str]:
        """Which devices do not know all devices of their rooms, or know too many."""
        found = []
        devices = self._cast.devices()
        views = await asyncio.gather(*(self._cast.do(each, "view") for each in devices))
        truths = {room: self._cast.truth(room) for room in self._cast.rooms}
        for device, view in zip(devices, views, strict=True):
            for room in self._cast.user_of(device).rooms:
                known = view["rooms"].get(room, {})
                if known != truths[room]:
                    found.append(_difference(device, room, known, truths[room]))
            if view["asking"]:
                found.append(f"{device} still asks for the lists of {view['asking']}")
            if view["outbox"]:
                found.append(f"{device} has still {view['outbox']} messages to send")
        return found

    async def roll_call(self) -> None:
        """Every device speaks once in each of its rooms."""

        async def speak(device: str) -> None:
            for room in sorted(self._cast.user_of(device).rooms):
                await self._cast.say(device, room, False)

        for devices in _parts(self._cast.devices(), 8):
            await asyncio.gather(*(speak(device) for device in devices))

    async def last_look(self) -> Counter[str]:
        """Every device reads all of its rooms; servers are asked for their state."""
        figures: Counter[str] = Counter()
        for room, name in self._cast.rooms.items():
            histories: dict[str, list[Copy]] = {}
            for devices in _parts(self._cast.devices_in(room), 4):
                read = await asyncio.gather(
                    *(self._cast.do(device, "audit", room_id=room) for device in devices)
                )
                for device, history in zip(devices, read, strict=True):
                    histories[device] = [Copy(*each) for each in history]
            figures += self._ledger.audit(room, histories)
            await self._compare_states(room, name)
        figures += self._ledger.finish(self._cast.devices())
        return figures

    async def _compare_states(self, room: str, name: str) -> None:
        states: dict[str, dict[str, str]] = {}
        for server in self._servers:
            member = next(
                (u for u in self._cast.users if u.server is server and room in u.rooms), None
            )
            if member is None:
                continue
            token = member.devices[min(member.devices)]
            for process in server.processes:
                where = f"{server.directory.name}/{process.directory.name}"
                states[where] = await state_of(process, room, token)
        (first, expected), *others = states.items()
        for where, state in others:
            for key in sorted(expected.keys() | state.keys()):
                if expected.get(key) != state.get(key):
                    self._ledger.problem(
                        "servers differ about a room's state",
                        f"{name} {room}, {key}: {expected.get(key)} on {first}, "
                        f"{state.get(key)} on {where}",
                    )


def _unread(message: Message) -> str:
    return f"{message}, by {sorted(message.waiting)}"


def _difference(
    device: str, room: str, known: dict[str, list[str]], truth: dict[str, list[str]]
) -> str:
    parts = [
        f"{user}: knows {known.get(user)}, there are {truth.get(user)}"
        for user in sorted(known.keys() | truth.keys())
        if known.get(user) != truth.get(user)
    ]
    return f"{device} in {room}: " + "; ".join(parts)


def _parts(devices: Sequence[str], size: int) -> list[Sequence[str]]:
    return [devices[n : n + size] for n in range(0, len(devices), size)]
