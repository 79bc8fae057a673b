"""Real server processes: the same command that operators use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import yaml

from tests.support import fork_server
from tests.support.fork_server import ForkedProcess
from tests.support.services import free_port

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """The environment of a server under test: finds the packages of this tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def command(*arguments: str) -> list[str]:
    """`hearth` with arguments."""
    return [sys.executable, "-m", "homeserver", *arguments]


def hearth(
    *arguments: str, stdin: str = "", directory: Path | None = None, imported: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. `imported`: in a process that has imported what it needs."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        process = start(arguments, directory, (given, out, err), imported=imported)
        try:
            status = process.wait(100)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            command(*arguments), status, out.read().decode(), err.read().decode()
        )


def start(
    arguments: Sequence[str],
    directory: Path | None,
    files: Sequence[IO[bytes]],
    *,
    imported: bool,
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start a command. `files`: its stdin, stdout and stderr; `imported` as of `hearth`."""
    stdin, stdout, stderr = files
    if imported:
        numbers = [file.fileno() for file in files]
        return fork_server.spawn(arguments, cwd=directory, env=environment(), files=numbers)
    return subprocess.Popen(
        command(*arguments),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=directory,
        env=environment(),
    )


class ServerProcess:
    """`hearth run` on free ports of the loopback interface, in a directory of its own.

    `port` answers clients; `own_port` has health and metrics. `options` of the configuration
    add to or replace what is needed for tests.
    """

    imported = True
    """Whether it begins with what it needs already imported."""

    def __init__(self, directory: Path, options: Mapping[str, Any] | None = None) -> None:
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.own_port = free_port()
        self.config_file = self.directory / "config.yaml"
        self.log_file = self.directory / "stderr.log"
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.options: dict[str, Any] = {
            "server_name": "localhost",
            "registration": {"enabled": True, "without_verification": True},
            "passwords": {"cost": "low"},
            "rate_limits": {"enabled": False},
            **(options or {}),
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def write_config(self) -> None:
        listeners = [
            {"port": self.port},
            {"port": self.own_port, "serves": ["metrics", "health"]},
        ]
        text = yaml.safe_dump({"listeners": listeners, **self.options})
        self.config_file.write_text(text, encoding="utf-8")

    def spawn(self, *arguments: str) -> None:
        """Start, without waiting for anything."""
        self.write_config()
        with self.log_file.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            self._process = start(
                ("run", "-c", str(self.config_file), *arguments),
                self.directory,
                (nothing, log, log),
                imported=self.imported,
            )

    def start(self, *arguments: str, ready_within: float = 60.0) -> None:
        """Start, and wait until /health answers. Raises AssertionError with the log if not."""
        self.spawn(*arguments)
        deadline = time.monotonic() + ready_within
        while self.health() != 200:
            if self.has_ended or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"The server did not start:\n{self.log()}")
            time.sleep(0.02)

    def health(self) -> int | None:
        """The status of /health; None if nobody answers."""
        try:
            return self.get(f"http://127.0.0.1:{self.own_port}/health")[0]
        except OSError:
            return None

    def get(self, url: str, timeout: float = 30.0) -> tuple[int, str]:
        """(status, body) of a URL or path; raises OSError when there is no connection."""
        return self.request("GET", url, timeout=timeout)

    def request(
        self, method: str, url: str, body: Any = None, token: str = "", timeout: float = 30.0
    ) -> tuple[int, str]:
        """(status, body); `url` may be a path. Raises OSError when there is no connection."""
        if url.startswith("/"):
            url = self.url + url
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def signal(self, number: int = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = 60.0) -> int:
        """The exit status; raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout)

    def stop(self) -> int:
        """Stop cleanly; the exit status."""
        self.signal()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
