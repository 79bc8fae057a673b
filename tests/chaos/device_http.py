"""Requests of a client that does not give up: it asks its server's processes in turn.

Runs where Hearth's own packages are not: it imports nothing of them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import aiohttp

PATIENCE = 25.0
"""Seconds within which an answer must come; a `/sync` waits for less."""
MAX_PAUSE = 2.0


class Asking:
    """Sends requests for one device. `drop_rate` of them are let go before the answer is there."""

    def __init__(self, urls: Sequence[str], chance: Random, drop_rate: float) -> None:
        self._urls = list(urls)
        self._turn = chance.randrange(len(urls))
        self._chance = chance
        self._drop_rate = drop_rate
        self._http: aiohttp.ClientSession | None = None
        self.token = ""
        self.counted: Counter[str] = Counter()
        self.failures: list[str] = []
        """Answers with status 500, which no server should give."""

    async def ask(
        self, method: str, path: str, body: Any = None, patience: float = PATIENCE
    ) -> tuple[int, Any]:
        """Status and answer; asked until a process gives one with a status below 500."""
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        tries = 0
        while True:
            answered = await self._once(method, path, data, patience)
            if answered is not None:
                status, answer = answered
                if status < 500 and status != 429:
                    return status, answer
                self.counted[f"status {status}"] += 1
                if status == 500:
                    self.failures.append(f"{method} {path.partition('?')[0]}: {answer}")
            tries += 1
            self._turn += 1
            await asyncio.sleep(min(0.05 * 2 ** min(tries, 10), MAX_PAUSE))

    async def _once(
        self, method: str, path: str, data: str | None, patience: float
    ) -> tuple[int, Any] | None:
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=8)
            self._http = aiohttp.ClientSession(connector=connector)
        if self._chance.random() < self._drop_rate:
            self.counted["dropped"] += 1
            patience = self._chance.uniform(0.002, 0.15)
        self.counted["requests"] += 1
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        url = self._urls[self._turn % len(self._urls)] + path
        try:
            async with (
                asyncio.timeout(patience),
                self._http.request(method, url, data=data, headers=headers) as response,
            ):
                text = await response.read()
                return response.status, json.loads(text)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            self.counted["without answer"] += 1
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None
