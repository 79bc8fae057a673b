"""A real server process, for tests of what only a process shows.

Everything here blocks: use it in threads (`deferToThread`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """`python -m homeserver` on a configuration in `directory`.

    `settings` are merged over open registration, cheap passwords and no rate limits. Started
    again with the same directory and port it carries on with its data.
    """

    def __init__(self, directory: Path, port: int | None = None, **settings: Any) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.config: dict[str, Any] = {
            "server_name": "hearth.test",
            "public_base_url": self.base_url + "/",
            "data_directory": str(directory / "data"),
            "listeners": [
                {
                    "address": "127.0.0.1",
                    "port": self.port,
                    "serves": ["client", "media", "health"],
                }
            ],
            "registration": {"enabled": True, "without_verification": True},
            "passwords": {"cost": "low"},
            "rate_limits": {"enabled": False},
            "log": {"level": "warning"},
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start, and wait until requests are answered. Raises AssertionError with the log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"config-{self.port}.yaml"
        path.write_text(yaml.safe_dump(self.config))
        with (self.directory / f"console-{self.port}.log").open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "homeserver", "run", "-c", str(path), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if self.request("GET", "/_matrix/client/versions")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the server did not start: {self.console()}")

    def console(self) -> str:
        """What the process printed."""
        path = self.directory / f"console-{self.port}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> int:
        """Stop with SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End with SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(how)
        return process.wait(60)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        timeout: float = 60,
    ) -> tuple[int, Any]:
        """Status and JSON body of a request. Raises OSError without an answer."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base_url + path, data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def register(self, name: str) -> dict[str, Any]:
        """Register a user; the answer of the endpoint."""
        status, answer = self.request(
            "POST",
            "/_matrix/client/v3/register",
            {"username": name, "password": "wonderland", "auth": {"type": "m.login.dummy"}},
        )
        if status != 200:
            raise AssertionError(f"registering answered {status}: {answer}")
        found: dict[str, Any] = answer
        return found
