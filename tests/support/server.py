"""A whole homeserver in the test's process, without sockets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

import config as hearth_config
from homeserver.app import Homeserver, build
from tests.support.client import Answer, Client
from tests.support.databases import migrated_database
from tests.support.network import OfflineReactor

SERVER_NAME = "hearth.test"
_names = itertools.count(1)


@dataclass
class User:
    """A logged-in user of a test server."""

    server: TestServer
    user_id: str
    token: str
    device_id: str
    _txns: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def client(self) -> Client:
        """A client with this user's token."""
        return self.server.client.with_token(self.token)

    async def call(self, method: str, path: str, json: Any = None, **options: Any) -> Answer:
        """Make a request; paths without a leading /_matrix are below /_matrix/client/v3."""
        full = path if path.startswith(("/_", "/.")) else f"/_matrix/client/v3{path}"
        return await self.client.request(method, full, json, **options)

    async def ok(self, method: str, path: str, json: Any = None, **options: Any) -> Any:
        """Make a request that must succeed; its body."""
        status, body = await self.call(method, path, json, **options)
        if status != 200:
            raise AssertionError(f"{method} {path} answered {status}: {body}")
        return body

    async def create_room(self, **body: Any) -> str:
        """Create a room; its ID."""
        answer = await self.ok("POST", "/createRoom", body)
        room_id: str = answer["room_id"]
        return room_id

    async def send(
        self, room_id: str, content: Any = "hello", event_type: str = "m.room.message"
    ) -> str:
        """Send a message event (a string is a text message); its ID."""
        if isinstance(content, str):
            content = {"msgtype": "m.text", "body": content}
        path = f"/rooms/{quote(room_id)}/send/{event_type}/t{next(self._txns)}"
        event_id: str = (await self.ok("PUT", path, content))["event_id"]
        return event_id

    async def set_state(
        self, room_id: str, event_type: str, content: Any, state_key: str = ""
    ) -> str:
        """Send a state event; its ID."""
        path = f"/rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
        event_id: str = (await self.ok("PUT", path, content))["event_id"]
        return event_id

    async def join(self, room_id: str) -> None:
        """Join a room."""
        await self.ok("POST", f"/join/{quote(room_id, safe='')}", {})

    async def invite(self, room_id: str, user_id: str) -> None:
        """Invite somebody."""
        await self.ok("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": user_id})

    async def leave(self, room_id: str) -> None:
        """Leave a room."""
        await self.ok("POST", f"/rooms/{quote(room_id)}/leave", {})

    async def sync(self, since: str | None = None, **query: Any) -> Any:
        """One /sync, without waiting unless `timeout` is given (ms)."""
        options = {"timeout": 0, **query}
        if since is not None:
            options["since"] = since
        return await self.ok("GET", "/sync", query=options)


@dataclass
class TestServer:
    """A homeserver with a client to call it."""

    __test__ = False
    homeserver: Homeserver
    client: Client

    async def restart(self) -> None:
        """Stop the homeserver and start another on the same database and directory."""
        await self.homeserver.stop()
        self.homeserver = await build(
            self.homeserver.config, OfflineReactor(), structlog.get_logger()
        )
        self.client = Client(self.homeserver.router)

    async def register(
        self, name: str | None = None, password: str = "wonderland", **body: Any
    ) -> User:
        """Register a user through the API."""
        status, answer = await self.client.post(
            "/_matrix/client/v3/register",
            {
                "username": name or f"user{next(_names)}",
                "password": password,
                "auth": {"type": "m.login.dummy"},
                **body,
            },
        )
        if status == 401:
            body["auth"] = {"type": "m.login.dummy", "session": answer["session"]}
            return await self.register(name, password, **body)
        if status != 200:
            raise AssertionError(f"registering answered {status}: {answer}")
        return User(self, answer["user_id"], answer["access_token"], answer["device_id"])


def test_config(directory: Path, database_url: str, **overrides: Any) -> hearth_config.Config:
    """A configuration for tests: open registration, cheap passwords, no rate limits."""
    settings: dict[str, Any] = {
        "server_name": SERVER_NAME,
        "public_base_url": "https://hearth.test/",
        "data_directory": str(directory),
        "database": {"url": database_url},
        "registration": {"enabled": True, "without_verification": True, "guests": True},
        "passwords": {"cost": "low"},
        "rate_limits": {"enabled": False},
    }
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(settings.get(key), dict):
            settings[key] = {**settings[key], **value}
        else:
            settings[key] = value
    return hearth_config.from_dict(settings)


test_config.__test__ = False  # type: ignore[attr-defined]


async def make_server(test: TestCase, **overrides: Any) -> TestServer:
    """A new homeserver on a database of its own, stopped after the test.

    `overrides` are keys of the configuration; sections are merged into `test_config`'s.
    """
    directory = Path(test.mktemp()).resolve()
    url = overrides.pop("database_url", None) or migrated_database(test)
    config = test_config(directory, url, **overrides)
    homeserver = await build(config, OfflineReactor(), structlog.get_logger())
    server = TestServer(homeserver, Client(homeserver.router))
    test.addCleanup(lambda: Deferred.fromCoroutine(server.homeserver.stop()))
    return server
