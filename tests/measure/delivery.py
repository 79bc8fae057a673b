"""From a message sent on one server to the answer of `/sync` on another, and on the same one."""

from __future__ import annotations

import asyncio
import statistics
import time

from tests.measure.client import MeasuringClient
from tests.measure.lab import Lab

_SETTLE_S = 0.05


class Receiver:
    """A client that waits in `/sync`; `arrived(text)` is when a message came."""

    def __init__(self, client: MeasuringClient) -> None:
        self._client = client.again()
        self._waiting: dict[str, asyncio.Future[float]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        since = (await self._client.sync(None))["next_batch"]
        self._task = asyncio.create_task(self._run(since))

    def expect(self, text: str) -> asyncio.Future[float]:
        return self._waiting.setdefault(text, asyncio.get_running_loop().create_future())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._client.close()

    async def _run(self, since: str) -> None:
        while True:
            answer = await self._client.sync(since, 30_000)
            now, since = time.monotonic(), answer["next_batch"]
            for room in answer.get("rooms", {}).get("join", {}).values():
                for event in room["timeline"]["events"]:
                    waiting = self._waiting.pop(event["content"].get("body"), None)
                    if waiting is not None:
                        waiting.set_result(now)


async def measure(lab: Lab, messages: int) -> None:
    """Deliver messages within one server and between two, in turns."""
    for database in lab.databases:
        for _ in range(lab.rounds):
            for kind in lab.kinds:
                async with lab.instance(kind, database) as a, lab.instance(kind, database) as b:
                    alice, carol = await a.register("alice"), await a.register("carol")
                    bob = await b.register("bob")
                    here, there = await alice.create_room(), await alice.create_room()
                    await carol.join(here)
                    await bob.join(there, a.server.name)
                    local, remote = Receiver(carol), Receiver(bob)
                    await local.start()
                    await remote.start()
                    await asyncio.sleep(2)
                    times: dict[str, list[float]] = {here: [], there: []}
                    for number in range(messages + 10):
                        for room_id, receiver in ((here, local), (there, remote)):
                            text = f"message {number} {room_id}"
                            expected = receiver.expect(text)
                            began = time.monotonic()
                            await alice.send(room_id, text)
                            arrived = await asyncio.wait_for(expected, 60)
                            if number >= 10:
                                times[room_id].append((arrived - began) * 1000)
                            await asyncio.sleep(_SETTLE_S)
                    local.stop()
                    remote.stop()
                    medians = [statistics.median(times[room]) for room in (here, there)]
                    lab.report(
                        "delivery",
                        kind,
                        database,
                        local_median_ms=medians[0],
                        remote_median_ms=medians[1],
                        local_least_ms=min(times[here]),
                        remote_least_ms=min(times[there]),
                        remote_by_local=medians[1] / medians[0],
                    )
