"""The servers that are measured: each one process, with a database of its own."""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import os
import secrets
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import yaml

import homeserver
from scripts.benchmark import readings
from scripts.benchmark.client import Client
from tests.support.network import authority, ca_file
from tests.support.services import PostgresCluster, free_port, postgres_program

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 180
_HOST = "127.0.0.1"

_STOCK = """
# What a new cluster of PostgreSQL has; the tests' own is not durable.
fsync = on
full_page_writes = on
shared_buffers = 128MB
max_wal_size = 1GB
max_connections = 100
autovacuum_naptime = 1min
log_min_messages = warning
"""


class StartFailed(Exception):
    """A server or its database does not start; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used since the start: user and system time, children included."""

    server: float
    database: float

    @property
    def total(self) -> float:
        return self.server + self.database


class Database:
    """PostgreSQL with the settings that it is installed with, on a free port."""

    def __init__(self, directory: Path) -> None:
        self._cluster = PostgresCluster(directory)

    @property
    def url(self) -> str:
        return self._cluster.url

    @property
    def port(self) -> int:
        return int((self._cluster.data / "port").read_text("ascii"))

    @property
    def _pid_file(self) -> Path:
        return self._cluster.data / "postmaster.pid"

    def create(self) -> None:
        """Make it and start it. Raises ServiceError."""
        self._cluster.create()
        self._cluster.stop()
        with (self._cluster.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(_STOCK)
        self._cluster.start()

    def pids(self) -> list[int]:
        """The postmaster and its backends."""
        try:
            return readings.tree(int(self._pid_file.read_text("ascii").split()[0]))
        except (OSError, ValueError, IndexError):
            return []

    def tidy(self) -> None:
        """Vacuum and analyse it, which PostgreSQL else does at a moment of its own choice."""
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("VACUUM (ANALYZE)")
        finally:
            connection.close()

    def close(self) -> None:
        """End it, if it runs; its data are not wanted any more."""
        if self._pid_file.exists():
            self._cluster.stop("immediate")


class Server(ABC):
    """A server process in a directory. `name` is what others call it.

    Parameters: `postgres`, or else SQLite; `python` has the server installed.
    """

    kind = ""
    title = ""

    def __init__(self, directory: Path, *, postgres: bool, python: str = sys.executable) -> None:
        self.directory = directory.absolute()
        self.client_port = free_port()
        self.federation_port = free_port()
        self.name = f"localhost:{self.federation_port}"
        self.client = Client(self.client_port)
        self.python = python
        self._database = Database(self.directory / "cluster") if postgres else None
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The configuration, written as YAML to `settings_file`."""

    @abstractmethod
    def command(self) -> list[str]:
        """What starts the server."""

    @property
    def settings_file(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def usage(self) -> Usage:
        """CPU time of the server and of its database so far."""
        server = readings.cpu_seconds(readings.tree(self.pid)) if self.pid else 0.0
        database = readings.cpu_seconds(self._database.pids()) if self._database else 0.0
        return Usage(server, database)

    async def tidy(self) -> None:
        """Do the housekeeping of PostgreSQL that is due after what was prepared."""
        if self._database is not None:
            await asyncio.to_thread(self._database.tidy)

    def memory(self) -> tuple[float, float]:
        """MB of the server, and of its database."""
        server = readings.pss_mb(readings.tree(self.pid)) if self.pid else 0.0
        return server, readings.pss_mb(self._database.pids()) if self._database else 0.0

    async def start(self) -> None:
        """Start the server, and its database before it. Raises StartFailed, ServiceError."""
        self._prepare()
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
        }
        if self.kind == Hearth.kind:
            environment["PYTHONPATH"] = str(ROOT)
        with (self.directory / "console.log").open("ab") as console:
            # In a session of its own: a control-C is for the benchmark, which ends its servers.
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        await self._answers()

    async def _answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.alive and time.monotonic() < deadline:
            try:
                await self.client.call("GET", "/_matrix/client/versions")
            except (OSError, TimeoutError):
                await asyncio.sleep(0.05)
            else:
                return
        state = "does not answer" if self.alive else "ended"
        raise StartFailed(f"{self.title} {state}: {self._end_of_log()}")

    def _prepare(self) -> None:
        if self._prepared:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        if self._database is not None:
            self._database.create()
        self.settings_file.write_text(yaml.safe_dump(self.settings(), sort_keys=False), "utf-8")
        self._prepared = True

    def _end_of_log(self) -> str:
        for name in ("console.log", "server.log"):
            path = self.directory / name
            text = path.read_text("utf-8", "replace").strip() if path.exists() else ""
            if text:
                return " | ".join(text.splitlines()[-3:])[-600:]
        return "it logged nothing"

    def close(self) -> None:
        """End the server and its database, if they run."""
        process = self._process
        try:
            self.client.close()
        finally:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes] | None) -> None:
        try:
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        finally:
            if self._database is not None:
                self._database.close()

    def _certificate(self) -> tuple[str, str]:
        """The files of a certificate for localhost, and of its key."""
        issued = authority().issue_cert("localhost")
        chain, key = self.directory / "tls.pem", self.directory / "tls.key"
        issued.private_key_pem.write_to_path(str(key))
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return str(chain), str(key)


class Hearth(Server):
    """This tree's server."""

    kind = "hearth"
    title = "Hearth"

    def command(self) -> list[str]:
        return [self.python, "-m", "homeserver", "run", "-c", str(self.settings_file)]

    def settings(self) -> dict[str, Any]:
        certificate, key = self._certificate()
        url = f"sqlite:///{self.directory / 'homeserver.db'}"
        federation = {
            "address": _HOST,
            "port": self.federation_port,
            "serves": ["federation", "media"],
            "tls": {"certificate": certificate, "private_key": key},
        }
        return {
            "server_name": self.name,
            "public_base_url": f"http://{_HOST}:{self.client_port}/",
            "data_directory": str(self.directory / "data"),
            "database": {"url": self._database.url if self._database else url},
            "log": {"to": str(self.directory / "server.log"), "level": "warning"},
            "listeners": [
                {"address": _HOST, "port": self.client_port, "serves": ["client", "media"]},
                federation,
            ],
            "registration": {"enabled": True, "without_verification": True},
            "rate_limits": {"enabled": False},
            "passwords": {"cost": "low"},
            "federation": {
                "ca_files": [str(ca_file())],
                "allowed_ip_ranges": ["127.0.0.0/8"],
                "trusted_key_servers": [],
            },
            "outgoing_http": {"allowed_ip_ranges": ["127.0.0.0/8"]},
        }


class Synapse(Server):
    """Synapse's main process, as it is installed from PyPI."""

    kind = "synapse"
    title = "Synapse"

    def command(self) -> list[str]:
        return [self.python, "-m", "synapse.app.homeserver", "-c", str(self.settings_file)]

    def settings(self) -> dict[str, Any]:
        certificate, key = self._certificate()
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        signing_key = self.directory / "signing.key"
        signing_key.write_text(f"ed25519 a_bench {seed}\n", "utf-8")
        log = self.directory / "log.yaml"
        log.write_text(yaml.safe_dump(_synapse_log(self.directory / "server.log")), "utf-8")
        return {
            "server_name": self.name,
            "public_baseurl": f"http://{_HOST}:{self.client_port}/",
            "report_stats": False,
            "pid_file": str(self.directory / "server.pid"),
            "listeners": [
                _synapse_listener(self.client_port, "client", tls=False),
                _synapse_listener(self.federation_port, "federation", tls=True),
            ],
            "tls_certificate_path": certificate,
            "tls_private_key_path": key,
            "federation_custom_ca_list": [str(ca_file())],
            "ip_range_blacklist": [],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "database": self._synapse_database(),
            "log_config": str(log),
            "media_store_path": str(self.directory / "media"),
            "signing_key_path": str(signing_key),
            "macaroon_secret_key": "benchmark",
            "form_secret": "benchmark",
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "bcrypt_rounds": 4,
            "background_updates": {"sleep_enabled": False},
            **_synapse_without_limits(),
        }

    def _synapse_database(self) -> dict[str, Any]:
        if self._database is None:
            return {"name": "sqlite3", "args": {"database": str(self.directory / "homeserver.db")}}
        arguments = {"user": "hearth", "dbname": "postgres", "host": _HOST}
        return {
            "name": "psycopg2",
            "args": {**arguments, "port": self._database.port, "cp_min": 5, "cp_max": 10},
        }


def _synapse_listener(port: int, what: str, *, tls: bool) -> dict[str, Any]:
    resources = [{"names": [what], "compress": False}]
    listener = {"port": port, "bind_addresses": [_HOST], "type": "http", "tls": tls}
    return listener | {"resources": resources}


def _synapse_log(file: Path) -> dict[str, Any]:
    handler = {"class": "logging.FileHandler", "filename": str(file), "formatter": "plain"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
        "handlers": {"file": handler},
        "root": {"level": "WARNING", "handlers": ["file"]},
        "loggers": {"synapse.storage.SQL": {"level": "WARNING"}},
    }


def _synapse_without_limits() -> dict[str, Any]:
    free = {"per_second": 1_000_000, "burst_count": 1_000_000}
    single = (
        *("message", "registration", "registration_token_validity", "joins_per_room"),
        *("admin_redaction", "3pid_validation", "third_party_invite", "media_create"),
        *("delayed_event_mgmt", "reports", "room_creation", "user_directory", "profile"),
    )
    nested = {
        "login": ("address", "account", "failed_attempts"),
        "joins": ("local", "remote"),
        "invites": ("per_room", "per_user", "per_issuer"),
        "presence": ("per_user",),
    }
    limits: dict[str, Any] = {f"rc_{name}": free for name in single}
    limits |= {f"rc_{name}": dict.fromkeys(parts, free) for name, parts in nested.items()}
    limits["rc_federation"] = {
        "window_size": 1000,
        "sleep_limit": 1_000_000,
        "sleep_delay": 1,
        "reject_limit": 1_000_000,
        "concurrent": 100,
    }
    return limits


KINDS: dict[str, type[Server]] = {server.kind: server for server in (Hearth, Synapse)}


def versions(synapse_python: str | None) -> dict[str, str]:
    """The version of each kind of server that is measured."""
    found = {Hearth.kind: f"{homeserver.__version__}{_commit()}"}
    if synapse_python is not None:
        code = "import importlib.metadata as m; print(m.version('matrix-synapse'))"
        asked = subprocess.run(
            [synapse_python, "-c", code], capture_output=True, text=True, check=False
        )
        found[Synapse.kind] = asked.stdout.strip() or "unknown"
    return found


def libraries(postgres: bool) -> dict[str, str]:
    """Versions of what the figures of Hearth depend on."""
    names = ("twisted", "orjson", "psycopg2-binary", "pynacl")
    found = {name: importlib.metadata.version(name) for name in names}
    if postgres:
        command = [postgres_program("postgres"), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found["postgresql"] = said.split()[2]
    return found


def _commit() -> str:
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    commit = asked.stdout.strip()
    return f" ({commit})" if commit else ""
