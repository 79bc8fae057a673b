"""Application services for tests: their registration files, and requests in their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import TestCase

from tests.support.client import Client, FullAnswer
from tests.support.server import TestServer

AS_TOKEN = "as-token-of-irc"
HS_TOKEN = "hs-token-of-irc"


def registration(name: str = "irc", **more: Any) -> dict[str, Any]:
    """A registration whose users and aliases begin with `_NAME_`."""
    return {
        "id": name,
        "url": None,
        "as_token": f"as-token-of-{name}",
        "hs_token": f"hs-token-of-{name}",
        "sender_localpart": f"{name}-bot",
        "namespaces": {
            "users": [{"exclusive": True, "regex": f"@_{name}_.*"}],
            "aliases": [{"exclusive": True, "regex": f"#_{name}_.*:hearth\\.test"}],
        },
        **more,
    }


def registration_files(test: TestCase, *registrations: Any) -> list[str]:
    """Files with these registrations."""
    directory = Path(test.mktemp()).resolve()
    directory.mkdir()
    files = []
    for index, each in enumerate(registrations):
        file = directory / f"{index}.yaml"
        text = each if isinstance(each, str) else yaml.safe_dump(each)
        file.write_text(text, encoding="utf-8")
        files.append(str(file))
    return files


class Service:
    """An application service: asks in its own name, or as one of its users."""

    def __init__(self, server: TestServer, name: str = "irc") -> None:
        self.client: Client = server.client.with_token(f"as-token-of-{name}")

    async def call(
        self, method: str, path: str, json: Any = None, *, user: str | None = None, **query: Any
    ) -> FullAnswer:
        """Paths are below /_matrix/client/v3 unless they begin with /_."""
        full = path if path.startswith("/_") else f"/_matrix/client/v3{path}"
        if user is not None:
            query["user_id"] = user
        return await self.client.full(method, full, json, query=query)

    async def register(self, localpart: str, **more: Any) -> FullAnswer:
        """Make an account."""
        body = {"type": "m.login.application_service", "username": localpart, **more}
        return await self.call("POST", "/register", body)
