"""Clients that wait in `/sync` all the time, and note when each message reached them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from scripts.benchmark.client import Json, User, esc
from scripts.benchmark.polling import Poller

FILTER: Json = {"room": {"timeline": {"limit": 100}, "state": {"lazy_load_members": True}}}
_WAIT_MS = 30_000
_STARTING = 20
"""So many begin at once."""


class Receivers:
    """Of the messages of one room. `arrivals`: by body and number of the user, the time."""

    def __init__(self, users: Sequence[User], room_id: str) -> None:
        self.arrivals: dict[str, dict[int, float]] = {}
        self._users = users
        self._room_id = room_id
        self._pollers: list[Poller] = []
        self._filling: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._left = 0
        self._changed = asyncio.Event()

    async def start(self, settle_s: float = 1.0) -> None:
        """Begin, and wait until all wait. Raises what their requests raise."""
        starting = asyncio.Semaphore(_STARTING)

        async def begin(number: int) -> None:
            user = self._users[number]
            async with starting:
                filter_id = await user.filter_id(FILTER)
                since = await user.catch_up(filter_id)
            heard = partial(self._heard, number)
            poller = Poller(user, filter_id, _WAIT_MS, heard, self._failed)
            self._pollers.append(poller)
            poller.start(since)

        async with asyncio.TaskGroup() as group:
            for number in range(len(self._users)):
                group.create_task(begin(number))
        await asyncio.sleep(settle_s)

    async def stop(self) -> None:
        """End them."""
        for poller in self._pollers:
            poller.close()
        for task in self._filling:
            task.cancel()
        await asyncio.gather(*self._filling, return_exceptions=True)

    def expect(self, bodies: Sequence[str]) -> None:
        """Name what `received` is to wait for; before it is sent."""
        self.arrivals = {body: {} for body in bodies}
        self._left = len(self.arrivals) * len(self._users)

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
                if self._failure is not None:
                    raise self._failure
                self._changed.clear()
                await self._changed.wait()

    def _failed(self, failure: Exception) -> None:
        self._failure = failure
        self._changed.set()

    def _heard(self, number: int, answer: Json) -> None:
        joined = answer.get("rooms", {}).get("join", {}).get(self._room_id)
        if joined is None:
            return
        timeline = joined.get("timeline", {})
        self._note(number, timeline.get("events", []))
        if timeline.get("limited") and self._left:
            task = asyncio.create_task(self._fill_gap(number, timeline["prev_batch"]))
            self._filling.add(task)
            task.add_done_callback(self._filling.discard)

    async def _fill_gap(self, number: int, position: str | None) -> None:
        """Page back, as clients do, for as long as that brings something new."""
        try:
            while position:
                query = f"dir=b&limit=100&from={esc(position)}"
                path = f"/rooms/{esc(self._room_id)}/messages?{query}"
                page = await self._users[number].call("GET", path)
                if not self._note(number, page["chunk"]):
                    break
                position = page.get("end")
        except Exception as error:
            self._failed(error)

    def _note(self, number: int, events: Sequence[Json]) -> int:
        """How many of the expected are new."""
        before, now = self._left, time.perf_counter()
        for event in events:
            arrived = self.arrivals.get(event.get("content", {}).get("body"))
            if arrived is not None and number not in arrived:
                arrived[number] = now
                self._left -= 1
        if not self._left:
            self._changed.set()
        return before - self._left
