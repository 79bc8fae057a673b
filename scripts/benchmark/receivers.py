"""Clients that wait in `/sync` all the time, and note when each message reached them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from scripts.benchmark.client import Json, User, esc

FILTER: Json = {"room": {"timeline": {"limit": 100}, "state": {"lazy_load_members": True}}}
_WAIT_MS = 30_000


class Receivers:
    """Of the messages of one room. `arrivals`: by body and number of the user, the time."""

    def __init__(self, users: Sequence[User], room_id: str) -> None:
        self.arrivals: dict[str, dict[int, float]] = {}
        self._users = users
        self._room_id = room_id
        self._tasks: list[asyncio.Task[None]] = []
        self._caught_up = 0
        self._expected: frozenset[str] = frozenset()
        self._left = 0
        self._changed = asyncio.Event()

    async def start(self, settle_s: float = 1.0) -> None:
        """Begin, and wait until all wait. Raises what their requests raise."""
        starting = asyncio.Semaphore(20)
        for number in range(len(self._users)):
            task = asyncio.create_task(self._follow(number, starting))
            task.add_done_callback(lambda _: self._changed.set())
            self._tasks.append(task)
        await self._until(lambda: self._caught_up == len(self._users))
        await asyncio.sleep(settle_s)

    async def stop(self) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def expect(self, bodies: Sequence[str]) -> None:
        """Name what `received` is to wait for; before it is sent."""
        self._expected = frozenset(bodies)
        self.arrivals = {body: {} for body in bodies}
        self._left = len(self._expected) * len(self._users)

    async def received(self) -> None:
        """Wait until every user has every expected message. Raises TimeoutError."""
        await self._until(lambda: not self._left)

    async def received_or_still(self, patience_s: float) -> int:
        """Wait until then, or until nothing came for a while; how many deliveries are missing."""
        left = self._left
        while left:
            try:
                await self._until(lambda: not self._left, patience_s)
            except TimeoutError:
                if self._left == left:
                    break
            left = self._left
        return left

    async def _until(self, condition: Callable[[], bool], longest_s: float = 600) -> None:
        async with asyncio.timeout(longest_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
                for task in self._tasks:
                    if task.done():
                        task.result()

    async def _follow(self, number: int, starting: asyncio.Semaphore) -> None:
        user = self._users[number]
        async with starting:
            filter_id = await user.filter_id(FILTER)
            since = await user.catch_up(filter_id)
        self._caught_up += 1
        self._changed.set()
        while True:
            answer = await user.sync(since, _WAIT_MS, filter_id)
            now = time.perf_counter()
            since = answer["next_batch"]
            joined = answer.get("rooms", {}).get("join", {}).get(self._room_id)
            if joined is not None:
                timeline = joined.get("timeline", {})
                self._note(number, timeline.get("events", []), now)
                if timeline.get("limited") and self._left:
                    await self._fill_gap(number, timeline["prev_batch"])
            if not self._left:
                self._changed.set()

    async def _fill_gap(self, number: int, position: str | None) -> None:
        """Page back, as clients do, for as long as that brings something new."""
        while position:
            path = f"/rooms/{esc(self._room_id)}/messages?dir=b&limit=100&from={esc(position)}"
            page = await self._users[number].call("GET", path)
            if not self._note(number, page["chunk"], time.perf_counter()):
                break
            position = page.get("end")

    def _note(self, number: int, events: Sequence[Json], now: float) -> int:
        """How many of the expected are new."""
        before = self._left
        for event in events:
            body = event.get("content", {}).get("body")
            if body in self._expected and number not in self.arrivals[body]:
                self.arrivals[body][number] = now
                self._left -= 1
        return before - self._left
