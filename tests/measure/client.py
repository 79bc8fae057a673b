"""A Matrix client on one kept-alive connection that costs next to nothing itself."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any
from urllib.parse import quote

import orjson

_txns = itertools.count(1)
LAZY = quote('{"room":{"state":{"lazy_load_members":true}}}')


class Refused(Exception):
    """An answer other than 200."""


class MeasuringClient:
    """A user's connection to a server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.token = ""
        self.user_id = ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def register(cls, port: int, name: str) -> MeasuringClient:
        client = cls(port)
        body: dict[str, Any] = {"username": name, "password": "wonderland-1"}
        body["auth"] = {"type": "m.login.dummy"}
        answer = await client.call("POST", "/register", body, accept=(200, 401))
        if "session" in answer:
            body["auth"]["session"] = answer["session"]
            answer = await client.call("POST", "/register", body)
        client.token, client.user_id = answer["access_token"], answer["user_id"]
        return client

    def again(self) -> MeasuringClient:
        """Another connection of the same user."""
        other = MeasuringClient(self._port)
        other.token, other.user_id = self.token, self.user_id
        return other

    async def call(
        self, method: str, path: str, body: Any = None, accept: tuple[int, ...] = (200,)
    ) -> Any:
        """The answer's JSON; raises Refused for other statuses than those of `accept`."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        data = b"" if body is None else orjson.dumps(body)
        token = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        writer.write(
            f"{method} /_matrix/client/v3{path} HTTP/1.1\r\nHost: localhost\r\n"
            f"{token}Content-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split(" ", 2)[1])
        if "transfer-encoding: chunked" in head:
            content = await self._chunks(reader)
        else:
            content = await reader.readexactly(
                int(head.split("content-length:")[1].split("\r\n")[0])
            )
        if status not in accept:
            raise Refused(f"{method} {path}: {status} {content[:500]!r}")
        return orjson.loads(content)

    @staticmethod
    async def _chunks(reader: asyncio.StreamReader) -> bytes:
        found = []
        while size := int(await reader.readline(), 16):
            found.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(found)

    async def create_room(self, **options: Any) -> str:
        body = {"preset": "public_chat", **options}
        room_id: str = (await self.call("POST", "/createRoom", body))["room_id"]
        return room_id

    async def join(self, room_id: str, via: str | None = None) -> None:
        query = f"?via={quote(via)}&server_name={quote(via)}" if via else ""
        await self.call("POST", f"/join/{quote(room_id)}{query}", {})

    async def send(self, room_id: str, text: str) -> str:
        path = f"/rooms/{quote(room_id)}/send/m.room.message/m{next(_txns)}"
        content = {"msgtype": "m.text", "body": text}
        event_id: str = (await self.call("PUT", path, content))["event_id"]
        return event_id

    async def members(self, room_id: str) -> int:
        """How many are known to be joined."""
        answer = await self.call("GET", f"/rooms/{quote(room_id)}/joined_members")
        return len(answer["joined"])

    async def sync(self, since: str | None, timeout_ms: int = 0) -> Any:
        path = f"/sync?filter={LAZY}&set_presence=offline&timeout={timeout_ms}"
        return await self.call("GET", path + (f"&since={since}" if since else ""))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
