"""PostgreSQL and Redis for tests: throw-away servers on free ports of the loopback interface.

`python -m tests.support.services start --directory D` starts both and prints lines of the form
NAME=VALUE for the environment of the tests; `stop --directory D` ends them. PostgreSQL refuses to
run as root: root runs it as the user `postgres`, or `nobody`.
"""

from __future__ import annotations

import argparse
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_random = random.SystemRandom()
POSTGRES_URL = "HEARTH_TEST_POSTGRES_URL"
REDIS_URL = "HEARTH_TEST_REDIS_URL"
_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 300
shared_buffers = 64MB
max_wal_size = 256MB
# The data need not outlive the machine.
fsync = off
full_page_writes = off
autovacuum_naptime = 10min
log_min_messages = fatal
"""


class ServiceError(Exception):
    """A server is not installed or does not start; the message says which and why."""


def free_port() -> int:
    """A port of loopback that nobody listens on, and that no outgoing connection gets.

    It is still free when its server starts, and again when it restarts, while others open
    connections.
    """
    while True:
        port = _random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def postgres_program(name: str) -> str:
    """The path of a program of PostgreSQL, of the newest installed version."""
    on_path = shutil.which(name)
    candidates = [
        *Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
        *Path("/usr").glob(f"pgsql-*/bin/{name}"),
        *Path("/opt/homebrew/opt").glob(f"postgresql@*/bin/{name}"),
    ]
    if candidates:
        return str(max(candidates, key=lambda path: _version(path.parts)))
    if on_path is not None:
        return on_path
    raise ServiceError(f"{name} is missing: install PostgreSQL 13 or newer.")


def _version(parts: tuple[str, ...]) -> int:
    digits = ["".join(filter(str.isdigit, part)) for part in parts]
    return max((int(text) for text in digits if text), default=0)


def _other_user() -> dict[str, Any]:
    """Arguments of `subprocess` that leave root behind."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise ServiceError("PostgreSQL cannot run as root, and there is no user `postgres`.")


class PostgresCluster:
    """One cluster in a directory, with a superuser `hearth` who needs no password."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "postgres"
        self._log = self.data / "server.log"
        self._as_user = _other_user()

    @property
    def url(self) -> str:
        """The URL of the maintenance database."""
        port = (self.data / "port").read_text("ascii")
        return f"postgresql://hearth@127.0.0.1:{port}/postgres"

    def create(self) -> None:
        """Make the cluster and start it. Raises ServiceError."""
        self.data.mkdir(parents=True)
        if self._as_user:
            self.data.parent.chmod(0o755)
            os.chown(self.data, self._as_user["user"], self._as_user["group"])
        self._run(
            "initdb", "--username=hearth", "--auth=trust", "--encoding=UTF8", "--no-sync",
            "--no-locale", "--pgdata", str(self.data),
        )  # fmt: skip
        port = free_port()
        (self.data / "port").write_text(str(port), "ascii")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(_SETTINGS.format(port=port))
        self.start()

    def start(self) -> None:
        self._run(
            "pg_ctl", "start", "--wait", "--silent", "--timeout=60",
            "--pgdata", str(self.data), "--log", str(self._log),
        )  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """`mode`: smart, fast or immediate, which is a crash."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}", "-D", str(self.data))

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [postgres_program(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.STDOUT,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
            check=False,
            **self._as_user,
        )
        if done.returncode:
            log = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
            said = (done.stdout or b"").decode("utf-8", "replace") + log
            # Why is in the last lines; who tells one line only tells the first.
            why = " | ".join(said.strip().splitlines()[-3:])
            raise ServiceError(f"{program} failed with status {done.returncode}: {why}\n{said}")


class RedisServer:
    """One Redis server that keeps nothing on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "redis"

    @property
    def port(self) -> int:
        return int((self.directory / "port").read_text("ascii"))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text("ascii"))

    def create(self) -> None:
        """Start it on a free port. Raises ServiceError."""
        self.directory.mkdir(parents=True)
        (self.directory / "port").write_text(str(free_port()), "ascii")
        self.start()

    def start(self) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise ServiceError("redis-server is missing: install Redis.")
        with (self.directory / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                    "--appendonly", "no", "--dir", str(self.directory),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        (self.directory / "pid").write_text(str(process.pid), "ascii")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                self._process = process
                return
        raise ServiceError(f"Redis does not start: see {self.directory / 'server.log'}.")

    def stop(self) -> None:
        pid = self.pid
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
        if process is not None:
            process.wait(30)
            return
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.02)
        raise ServiceError("Redis does not stop.")


def main(arguments: list[str]) -> int:
    """The command line: start or stop both servers."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.services")
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args(arguments)
    directory = options.directory.resolve()
    postgres, redis = PostgresCluster(directory), RedisServer(directory)
    try:
        if options.action == "start":
            postgres.create()
            redis.create()
            print(f"{POSTGRES_URL}={postgres.url}\n{REDIS_URL}={redis.url}")
            return 0
        for service in (postgres, redis):
            if (directory / ("postgres" if service is postgres else "redis") / "port").exists():
                service.stop()
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
