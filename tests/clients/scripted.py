"""Clients in processes of their own, which are told what to do by lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from scripts.clients import NIO, RUST
from scripts.run_tests import JS_CLIENT
from tests.support.process import ServerProcess

PASSWORD = "wonderland"
PATIENCE = 40
"""Seconds within which a client must see what happened."""
HERE = Path(__file__).resolve().parent


def required(variable: str) -> str:
    """What an environment variable says of an installed client; skips the test without it."""
    found = os.environ.get(variable)
    if found is None:
        raise SkipTest(f"{variable} is not set: `scripts/test --clients` installs the client")
    return found


class ScriptedClient:
    """A client's process."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    @classmethod
    async def start(cls, *command: str, cwd: str | Path, name: str, log: Path) -> ScriptedClient:
        """Start a process; `name` is for messages, `log` gets what it says of itself."""
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                limit=2**22,
            )
        return cls(process, name)

    async def do(self, command: str, /, **arguments: Any) -> Any:
        """Run a command of the script; its result. Raises AssertionError if it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"do": command, **arguments}).encode() + b"\n"
        self._process.stdin.write(line)
        try:
            answered = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            raise AssertionError(f"{self._name} waits for ever: {command} {arguments}") from None
        if not answered:
            raise AssertionError(f"{self._name} ended: {command} {arguments}")
        answer = json.loads(answered)
        if "error" in answer:
            raise AssertionError(f"{self._name}: {command} {arguments}: {answer['error']}")
        return answer["ok"]

    async def end(self) -> None:
        """End the process."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Cast:
    """The clients of a test, on servers that the test runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._clients: list[ScriptedClient] = []

    async def _start(self, *command: str, cwd: str | Path, name: str) -> ScriptedClient:
        log = self._directory / f"{len(self._clients)}.log"
        found = await ScriptedClient.start(*command, cwd=cwd, name=name, log=log)
        self._clients.append(found)
        return found

    async def nio(self, server: ServerProcess, user: str, device: str) -> ScriptedClient:
        """A device with matrix-nio, not logged in."""
        return await self._python(required(NIO), "nio_client.py", server, user, device)

    async def rust(self, server: ServerProcess, user: str, device: str) -> ScriptedClient:
        """A device with the Rust SDK, not logged in."""
        return await self._python(required(RUST), "rust_client.py", server, user, device)

    async def js(self, server: ServerProcess) -> ScriptedClient:
        """A device with matrix-js-sdk, not logged in."""
        command = ("node", "js_client.mjs", server.url)
        return await self._start(*command, cwd=required(JS_CLIENT), name="matrix-js-sdk")

    async def _python(
        self, python: str, script: str, server: ServerProcess, user: str, device: str
    ) -> ScriptedClient:
        store = self._directory / f"{user}-{device}"
        store.mkdir()
        command = (python, str(HERE / script), server.url, user, device, str(store))
        return await self._start(*command, cwd=store, name=f"{user}/{device} ({script})")

    async def end(self) -> None:
        """End all clients."""
        for client in self._clients:
            await client.end()


class ClientCase(TestCase):
    """Tests in which clients play a scenario on servers of their own."""

    timeout = 300

    async def on_a_server(self, scenario: Callable[[ServerProcess, Cast], Any]) -> None:
        """Play a scenario on one server, `localhost`, with the users alice and bob."""
        directory = Path(self.mktemp()).resolve()
        server = ServerProcess(directory / "server")
        await self.on_servers([server], lambda cast: scenario(server, cast))

    async def on_servers(
        self, servers: Sequence[ServerProcess], scenario: Callable[[Cast], Any]
    ) -> None:
        """Start servers, play a scenario, and stop them; they must end well."""
        await deferToThread(self._play, servers, scenario)

    def _play(self, servers: Sequence[ServerProcess], scenario: Callable[[Cast], Any]) -> None:
        cast = Cast(servers[0].directory.parent / "clients")

        async def play() -> None:
            try:
                await scenario(cast)
            finally:
                await cast.end()

        try:
            for server in servers:
                server.start()
                for user in ("alice", "bob"):
                    register(server, user)
            asyncio.run(play())
        except BaseException:
            for server in servers:
                server.kill()
            raise
        for server in servers:
            self.assertEqual(server.stop(), 0, server.log())


def register(server: ServerProcess, user: str) -> None:
    """Make a user with PASSWORD."""
    body = {
        "username": user,
        "password": PASSWORD,
        "inhibit_login": True,
        "auth": {"type": "m.login.dummy"},
    }
    status, text = server.request("POST", "/_matrix/client/v3/register", body)
    assert status == 200, text
