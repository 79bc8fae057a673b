"""A client that waits in `/sync` all the time, by callbacks: thousands of them cost little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

import orjson

from scripts.benchmark.client import V3, Answer, Connection, Json, Refused, User

_SPLIT = "SINCE"


class Poller:
    """Asks again with each answer, on a connection of its own, until it is closed.

    Parameters: `heard` gets each answer, before the next request goes out; `failed` is told once
    why it ended by itself.
    """

    def __init__(
        self,
        user: User,
        filter_id: str,
        timeout_ms: int,
        heard: Callable[[Json], None],
        failed: Callable[[Exception], None],
    ) -> None:
        path = f"{V3}/sync?timeout={timeout_ms}&set_presence=offline&filter={quote(filter_id)}"
        request = user.client.request("GET", f"{path}&since={_SPLIT}", user.token)
        self._before, _, self._after = request.partition(_SPLIT.encode())
        self._user = user
        self._heard = heard
        self._failed = failed
        self._closed = False
        self._since = b""
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None

    def start(self, since: str) -> None:
        """Begin at a position."""
        self._since = quote(since, safe="").encode()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            self._connection = await self._user.client.connect()
        except OSError as error:
            self._failed(error)
        else:
            self._ask(self._connection)

    def _ask(self, connection: Connection) -> None:
        connection.send(self._before + self._since + self._after, self._answered)

    def _answered(self, answer: Answer | Exception) -> None:
        if self._closed:
            return
        if isinstance(answer, Exception) or answer.status >= 400:
            self.close()
            self._failed(answer if isinstance(answer, Exception) else Refused(answer, "/sync"))
            return
        found: Json = orjson.loads(answer.body)
        self._since = quote(found["next_batch"], safe="").encode()
        self._heard(found)
        connection = self._connection
        if connection is not None and not connection.closed:
            self._ask(connection)
        else:
            self._connecting = asyncio.create_task(self._connect())

    def close(self) -> None:
        """End it."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close()
