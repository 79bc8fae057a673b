"""Memory of waiting clients: `python -m tests.measure.waiting [--clients N]`.

Starts a real server process on SQLite with one room of N users, has each wait in `/sync` on a
connection of its own, and prints kilobytes (PSS) for each; then how long a message takes to all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.services import free_port


class Connection:
    """A keep-alive connection to the server."""

    def __init__(self, port: int, token: str = "") -> None:
        self._port = port
        self.token = token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def start(self, method: str, path: str, body: Any = None) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} /_matrix/client/v3{path} HTTP/1.1\r\nHost: localhost\r\n"
        head += "User-Agent: Mozilla/5.0 (X11; Linux x86_64) measuring\r\nAccept: */*\r\n"
        head += f"Content-Length: {len(data)}\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        self._streams[1].write(head.encode() + data)

    async def answer(self) -> Any:
        assert self._streams is not None
        reader = self._streams[0]
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        return json.loads(await reader.readexactly(length))

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        await self.start(method, path, body)
        return await self.answer()


def pss(pid: int) -> int:
    """Kilobytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError("no PSS")


def cpu(pid: int) -> float:
    """Seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def register(port: int, name: str) -> Connection:
    connection = Connection(port)
    body = {"username": name, "password": "wonderland", "auth": {"type": "m.login.dummy"}}
    answer = await connection.call("POST", "/register", body)
    if "session" in answer:
        body["auth"] = {"type": "m.login.dummy", "session": answer["session"]}
        answer = await connection.call("POST", "/register", body)
    connection.token = answer["access_token"]
    return connection


async def listening(port: int) -> None:
    """Return when the server takes connections."""
    while True:
        try:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            return
        except OSError:
            await asyncio.sleep(0.2)


async def measure(port: int, pid: int, clients: int) -> None:
    first = await register(port, "first")
    room = (await first.call("POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
    users = []
    for number in range(clients):
        user = await register(port, f"user{number}")
        await user.call("POST", f"/join/{quote(room)}", {})
        users.append(user)
    lazy = quote('{"room":{"state":{"lazy_load_members":true}}}')
    tokens = {}
    for user in users:
        path = f"/sync?set_presence=offline&filter={lazy}"
        tokens[user] = (await user.call("GET", path))["next_batch"]
    await asyncio.sleep(3)
    before = pss(pid)
    for user in users:
        path = f"/sync?set_presence=offline&filter={lazy}&timeout=120000&since={tokens[user]}"
        await user.start("GET", path)
    await asyncio.sleep(5)
    after = pss(pid)
    print(f"{before} kB before, {(after - before) / clients:.1f} kB for each waiting client")
    began, spent = time.monotonic(), cpu(pid)
    path = f"/rooms/{quote(room)}/send/m.room.message/t1"
    await first.call("PUT", path, {"msgtype": "m.text", "body": "hello"})
    await asyncio.gather(*(user.answer() for user in users))
    took, used = time.monotonic() - began, cpu(pid) - spent
    print(f"a message to all: {took:.2f} s, {used * 1000 / clients:.2f} ms of CPU for each")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        path = Path(directory) / "config.yaml"
        settings = {
            "server_name": "localhost",
            "public_base_url": f"http://127.0.0.1:{port}/",
            "data_directory": directory,
            "registration": {"enabled": True, "without_verification": True},
            "passwords": {"cost": "low"},
            "rate_limits": {"enabled": False},
            "listeners": [{"address": "127.0.0.1", "port": port, "serves": ["client"]}],
            "log": {"level": "warning"},
        }
        path.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "homeserver", "run", "-c", str(path)]
        server = subprocess.Popen(command)
        try:
            asyncio.run(listening(port))
            asyncio.run(measure(port, server.pid, options.clients))
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
