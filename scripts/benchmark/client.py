"""A Matrix client that costs little itself: httptools on asyncio, connections kept alive."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

import httptools
import orjson

Json: TypeAlias = dict[str, Any]
V3 = "/_matrix/client/v3"
PASSWORD = "correct horse battery staple"
_STALE_S = 15
"""A connection that was idle for longer is not used again: the server may be closing it."""
_transactions = itertools.count(1)


class Answer(NamedTuple):
    """Of one request."""

    status: int
    body: bytes


class Refused(Exception):
    """An answer of status 400 or more."""

    def __init__(self, answer: Answer, what: str) -> None:
        self.status = answer.status
        try:
            parsed = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            parsed = None
        self.body: Json = parsed if isinstance(parsed, dict) else {}
        super().__init__(f"{what} answered {answer.status} {answer.body[:200]!r}")


def esc(part: str) -> str:
    """One segment of a path."""
    return quote(part, safe="")


class Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self.usable_until = 0.0
        self.closed = False
        self._transport: Any = None
        self._parser: Any = None
        self._body: list[bytes] = []
        self._done: Callable[[Answer | Exception], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, data: bytes, done: Callable[[Answer | Exception], None]) -> None:
        """Send a request; `done` gets the answer, or why there is none, and may send the next."""
        self._parser = httptools.HttpResponseParser(self)
        self._body = []
        self._done = done
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        done, self._done = self._done, None
        if not self._parser.should_keep_alive():
            self.close()
        self.usable_until = time.monotonic() + _STALE_S
        if done is not None:
            done(Answer(self._parser.get_status_code(), b"".join(self._body)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        done, self._done = self._done, None
        if done is not None:
            done(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self.closed = True
        self._transport.close()


class Client:
    """A server on a port of loopback, over as many connections as there are requests at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    def close(self) -> None:
        """Close the connections on which nothing is asked."""
        while self._idle:
            self._idle.pop().close()

    async def ask(self, method: str, path: str, token: str = "", data: bytes = b"") -> Answer:
        """Send a request, and wait for as long as it takes. Raises OSError."""
        connection = await self._connection()
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(answer: Answer | Exception) -> None:
            if answered.done():
                return
            if isinstance(answer, Exception):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)

        connection.send(self.request(method, path, token, data), done)
        try:
            answer = await answered
        except BaseException:
            connection.close()
            raise
        if not connection.closed:
            self._idle.append(connection)
        return answer

    def request(self, method: str, path: str, token: str = "", data: bytes = b"") -> bytes:
        """A request as it is sent."""
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{authorization}"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data

    async def connect(self) -> Connection:
        """A new connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self._port))[1]

    async def _connection(self) -> Connection:
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.usable_until > now:
                return connection
            connection.close()
        return await self.connect()

    async def call(self, method: str, path: str, body: Any = None, token: str = "") -> Json:
        """The answer's JSON. Raises Refused, OSError."""
        data = orjson.dumps(body) if body is not None else b""
        answer = await self.ask(method, path, token, data)
        if answer.status >= 400:
            raise Refused(answer, f"{method} {path}")
        found: Json = orjson.loads(answer.body)
        return found

    async def register(self, name: str) -> User:
        """Make an account with a device. Raises Refused, OSError."""
        body: Json = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        try:
            answer = await self.call("POST", f"{V3}/register", body)
        except Refused as refused:
            if refused.status != 401 or "session" not in refused.body:
                raise
            body["auth"]["session"] = refused.body["session"]
            answer = await self.call("POST", f"{V3}/register", body)
        return User(self, answer)

    async def login(self, name: str) -> User:
        """A new device of an account. Raises Refused, OSError."""
        who = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": who, "password": PASSWORD}
        return User(self, await self.call("POST", f"{V3}/login", body))


class User:
    """A device that is logged in. Its methods raise Refused and OSError."""

    def __init__(self, client: Client, answer: Json) -> None:
        self.client = client
        self.user_id: str = answer["user_id"]
        self.device_id: str = answer["device_id"]
        self.token: str = answer["access_token"]
        self._filters: dict[bytes, str] = {}

    async def call(self, method: str, path: str, body: Any = None) -> Json:
        """Ask for something below `/_matrix/client/v3`."""
        return await self.client.call(method, V3 + path, body, self.token)

    async def create_room(self, version: str, **extra: Any) -> str:
        """Make a public room; its ID."""
        body = {"preset": "public_chat", "room_version": version, **extra}
        room_id: str = (await self.call("POST", "/createRoom", body))["room_id"]
        return room_id

    async def join(self, room_id: str, via: str | None = None) -> None:
        """Join a room; `via` has it, if it is of another server."""
        # `server_name` is the older spelling of `via`.
        query = "?" + urlencode({"via": via, "server_name": via}) if via else ""
        await self.call("POST", f"/join/{esc(room_id)}{query}", {})

    async def send(self, room_id: str, body: str) -> str:
        """Send a text message; its ID."""
        path = f"/rooms/{esc(room_id)}/send/m.room.message/b{next(_transactions)}"
        answer = await self.call("PUT", path, {"msgtype": "m.text", "body": body})
        event_id: str = answer["event_id"]
        return event_id

    async def filter_id(self, definition: Json) -> str:
        """Store a filter, once; its ID."""
        key = orjson.dumps(definition)
        if key not in self._filters:
            path = f"/user/{esc(self.user_id)}/filter"
            self._filters[key] = (await self.call("POST", path, definition))["filter_id"]
        return self._filters[key]

    async def sync_bytes(
        self, since: str | None = None, timeout_ms: int = 0, filter_id: str = ""
    ) -> bytes:
        """The body of a `/sync`."""
        parameters = {"timeout": str(timeout_ms), "set_presence": "offline"}
        if since:
            parameters["since"] = since
        if filter_id:
            parameters["filter"] = filter_id
        path = f"{V3}/sync?{urlencode(parameters)}"
        answer = await self.client.ask("GET", path, self.token)
        if answer.status >= 400:
            raise Refused(answer, "/sync")
        return answer.body

    async def sync(
        self, since: str | None = None, timeout_ms: int = 0, filter_id: str = ""
    ) -> Json:
        """A `/sync`."""
        found: Json = orjson.loads(await self.sync_bytes(since, timeout_ms, filter_id))
        return found

    async def catch_up(self, filter_id: str = "") -> str:
        """Sync until nothing is new; the position to go on from."""
        since: str = (await self.sync(None, 0, filter_id))["next_batch"]
        for _ in range(20):
            batch: str = (await self.sync(since, 0, filter_id))["next_batch"]
            if batch == since:
                break
            since = batch
            await asyncio.sleep(0.05)
        return since
