"""Real servers, each a process: Hearth and Synapse, over loopback TLS with the tests' CA."""

from __future__ import annotations

import fcntl
import functools
import os
import secrets
import shutil
import sqlite3
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from homeserver.core.signing import encode_base64
from tests.interop.account import Account, call, together
from tests.support.databases import scratch_directory
from tests.support.network import authority, ca_file, eventually
from tests.support.process import ServerProcess
from tests.support.services import free_port

INTEROP = "HEARTH_TEST_INTEROP"
"""The environment variable with the Python of Synapse's virtual environment."""
KEEP = "HEARTH_TEST_INTEROP_KEEP"
"""The environment variable with a directory where logs and databases of the servers stay."""
TEMPLATES = "HEARTH_TEST_INTEROP_TEMPLATES"
"""The environment variable with a directory for the empty database that Synapses begin with."""


class NotStarted(AssertionError):
    """A server ended, or did not answer in time."""


def certificate(directory: Path) -> tuple[Path, Path]:
    """The files of a certificate for localhost and its key."""
    issued = authority().issue_cert("localhost")
    chain, key = directory / "tls.pem", directory / "tls.key"
    issued.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return chain, key


class Server(ABC):
    """A server process. `url` answers clients, `name` other servers.

    `proxied`: it serves federation without TLS on `federation_port`, behind a proxy that listens
    on the port of its name.
    """

    kind = ""

    def __init__(self, directory: Path, proxied: bool = False) -> None:
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True)
        self.proxied = proxied
        self.port = free_port()
        self.client_port = free_port()
        self.federation_port = free_port() if proxied else self.port
        self.name = f"localhost:{self.port}"
        self.url = f"http://127.0.0.1:{self.client_port}"

    async def register(self, name: str = "user") -> Account:
        return await Account.register(self, name)

    async def start(self, attempts: int = 2) -> None:
        """Start, and wait until it answers; once more if it does not. Raises `NotStarted`."""
        self.spawn()
        deadline = time.monotonic() + 60

        async def answers() -> bool:
            if self.has_ended() or time.monotonic() > deadline:
                return True
            try:
                status, _ = await call(self.url, "GET", "/_matrix/client/versions")
            except Exception:
                return False
            return status == 200

        await eventually(answers, f"{self.kind} starting: {self.directory}", 100)
        if not self.has_ended() and time.monotonic() <= deadline:
            return
        self.kill()
        if attempts < 2:
            raise NotStarted(f"{self.kind} in {self.directory}: {self.log()[-3000:]}")
        await self.start(attempts - 1)

    @abstractmethod
    def spawn(self) -> None:
        """Start, without waiting."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Is there no process?"""

    @abstractmethod
    def log(self) -> str:
        """What it logged."""

    @abstractmethod
    def stop(self) -> None:
        """Stop cleanly; `start` continues."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL."""


class HearthServer(Server):
    """`hearth run`."""

    kind = "Hearth"

    def __init__(self, directory: Path, proxied: bool = False, **options: Any) -> None:
        super().__init__(directory, proxied)
        chain, key = certificate(self.directory)
        federation: dict[str, Any] = {"port": self.federation_port, "serves": ["federation"]}
        if not proxied:
            federation["tls"] = {"certificate": str(chain), "private_key": str(key)}
        self._process = ServerProcess(self.directory)
        self._process.own_port = free_port()
        self._process.options |= {
            "server_name": self.name,
            "federation": {
                "ca_files": [str(ca_file())],
                "allowed_ip_ranges": ["127.0.0.0/8"],
                "public_rooms": True,
            },
            "listeners": [
                {"port": self.client_port, "serves": ["client", "media"]},
                federation,
                {"port": self._process.own_port, "serves": ["metrics", "health"]},
            ],
            **options,
        }

    def spawn(self) -> None:
        self._process.spawn()

    def has_ended(self) -> bool:
        return self._process.has_ended

    def log(self) -> str:
        return self._process.log()

    def stop(self) -> None:
        if not self._process.has_ended:
            self._process.stop()

    def kill(self) -> None:
        self._process.kill()


class SynapseServer(Server):
    """Synapse from its own virtual environment, on SQLite."""

    kind = "Synapse"

    def __init__(self, directory: Path, proxied: bool = False) -> None:
        super().__init__(directory, proxied)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file = self.directory / "synapse.log"
        seed = encode_base64(secrets.token_bytes(32))
        (self.directory / "signing.key").write_text(f"ed25519 a_test {seed}\n", "utf-8")
        self._write_config()

    def _write_config(self) -> None:
        chain, key = certificate(self.directory)
        resources = [{"names": ["federation"], "compress": False}]
        settings = {
            "server_name": self.name,
            "report_stats": False,
            "pid_file": str(self.directory / "pid"),
            "signing_key_path": str(self.directory / "signing.key"),
            "media_store_path": str(self.directory / "media"),
            "log_config": str(self.directory / "log.yaml"),
            "database": {"name": "sqlite3", "args": {"database": str(self.directory / "db")}},
            "listeners": [
                {
                    "port": self.federation_port,
                    "type": "http",
                    "tls": not self.proxied,
                    "bind_addresses": ["127.0.0.1"],
                    "resources": resources,
                },
                {
                    "port": self.client_port,
                    "type": "http",
                    "tls": False,
                    "bind_addresses": ["127.0.0.1"],
                    "resources": [{"names": ["client"], "compress": False}],
                },
            ],
            "tls_certificate_path": str(chain),
            "tls_private_key_path": str(key),
            "federation_custom_ca_list": [str(ca_file())],
            "ip_range_whitelist": ["127.0.0.0/8"],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "macaroon_secret_key": secrets.token_hex(16),
            "form_secret": secrets.token_hex(16),
            "registration_shared_secret": secrets.token_hex(16),
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "bcrypt_rounds": 4,
            "allow_public_rooms_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "allow_public_rooms_without_auth": True,
            "presence": {"enabled": True},
            "federation": {
                "destination_min_retry_interval": "1s",
                "destination_retry_multiplier": 1,
                "destination_max_retry_interval": "2s",
                "max_short_retries": 1,
                "max_short_retry_delay": "1s",
                "max_long_retries": 1,
                "max_long_retry_delay": "2s",
            },
            "background_updates": {"sleep_enabled": False},
            **_unlimited(),
        }
        (self.directory / "homeserver.yaml").write_text(yaml.safe_dump(settings), "utf-8")
        log = {
            "version": 1,
            "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {
                "file": {
                    "class": "logging.FileHandler",
                    "filename": str(self._log_file),
                    "formatter": "plain",
                }
            },
            # What nobody will read takes time.
            "root": {"level": "INFO" if os.environ.get(KEEP) else "WARNING", "handlers": ["file"]},
            "disable_existing_loggers": False,
        }
        (self.directory / "log.yaml").write_text(yaml.safe_dump(log), "utf-8")

    def spawn(self) -> None:
        if not (self.directory / "db").exists():
            shutil.copyfile(_empty_database(), self.directory / "db")
        self.spawn_on_database()

    def spawn_on_database(self) -> None:
        """Start with the database that there is, or none."""
        python = os.environ[INTEROP]
        command = [python, "-m", "synapse.app.homeserver", "-c", "homeserver.yaml"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        with (self.directory / "stderr.log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=environment,
            )

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def log(self) -> str:
        files = (self.directory / "stderr.log", self._log_file)
        return "".join(file.read_text("utf-8", "replace") for file in files if file.exists())

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def start_all(servers: Sequence[Server]) -> None:
    """Start those that do not run, all at the same time. Raises `NotStarted`."""
    await together(server.start() for server in servers if server.has_ended())


@functools.cache
def _empty_database() -> Path:
    """A database of Synapse's without users, in which the background updates have been made.

    Those of a new database go on for a minute, and hold up what the tests ask for. Raises
    `NotStarted`.
    """
    base = os.environ.get(TEMPLATES)
    parent = Path(base) if base else scratch_directory()
    template = parent / "synapse.db"
    with (parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if template.exists():
            return template
        server = SynapseServer(parent / f"template-{os.getpid()}")
        database = server.directory / "db"
        try:
            for _ in range(2):
                server.spawn_on_database()
                deadline = time.monotonic() + 60
                while not server.has_ended() and time.monotonic() < deadline:
                    if _is_up_to_date(database):
                        server.stop()
                        database.rename(template)
                        return template
                    time.sleep(0.1)
                server.kill()
        finally:
            server.kill()
        raise NotStarted(f"Synapse makes no database: {server.log()[-3000:]}")


def _is_up_to_date(database: Path) -> bool:
    """Is the schema complete, and no background update left?"""
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=1)
    except sqlite3.Error:
        return False
    try:
        # The schema is made in one transaction.
        if not connection.execute("SELECT version FROM schema_version").fetchone():
            return False
        return not connection.execute("SELECT 1 FROM background_updates").fetchone()
    except sqlite3.Error:
        return False
    finally:
        connection.close()


def _unlimited() -> dict[str, Any]:
    free = {"per_second": 10000, "burst_count": 10000}
    return {
        "rc_message": free,
        "rc_registration": free,
        "rc_login": {"address": free, "account": free, "failed_attempts": free},
        "rc_admin_redaction": free,
        "rc_joins": {"local": free, "remote": free},
        "rc_joins_per_room": free,
        "rc_invites": {"per_room": free, "per_user": free, "per_issuer": free},
        "rc_3pid_validation": free,
        "rc_presence": {"per_user": free},
        "rc_room_creation": free,
        "rc_delayed_event_mgmt": free,
        "rc_federation": {
            "window_size": 1000,
            "sleep_limit": 100000,
            "sleep_delay": 1,
            "reject_limit": 100000,
            "concurrent": 100,
        },
    }
