"""Files between Hearth and Synapse, both ways."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import treq
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool

from tests.homeserver.media.pictures import opened, picture
from tests.interop.account import TIMEOUT_S, Account, reactor
from tests.interop.case import InteropCase, both_ways

MEDIA = "/_matrix/client/v1/media"


async def fetch(
    account: Account, verb: str, path: str, data: bytes | None = None, **query: Any
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of a request with or for a file."""
    url = f"{account.server.url}{path}" + (f"?{urlencode(query)}" if query else "")
    agent: Any = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
    headers: Any = {"Authorization": f"Bearer {account.token}", "Content-Type": "image/png"}
    response: Any = await treq.request(
        verb, url, data=data, headers=headers, agent=agent, timeout=TIMEOUT_S
    )
    body = await response.content()
    await deferLater(reactor, 0, lambda: None)
    found = {
        name.decode().lower(): values[-1].decode()
        for name, values in response.headers.getAllRawHeaders()
    }
    return response.code, body, found


@both_ways(globals())
class Media(InteropCase):
    async def upload(self, data: bytes, filename: str) -> str:
        """A file of alice's, at home; `server/id`."""
        status, body, _ = await fetch(
            self.alice, "POST", "/_matrix/media/v3/upload", data, filename=filename
        )
        self.assertEqual(status, 200, body)
        uri: str = json.loads(body)["content_uri"]
        return uri.removeprefix("mxc://")

    async def test_file(self) -> None:
        """Bytes, type and name arrive. Shows MED-4."""
        data = bytes(range(256)) * 4000
        name = await self.upload(data, "a ☕.png")
        for _ in range(2):
            status, body, headers = await fetch(self.bob, "GET", f"{MEDIA}/download/{name}")
            self.assertEqual((status, body), (200, data))
            self.assertEqual(headers["content-type"], "image/png")
            self.assertIn("%E2%98%95.png", headers["content-disposition"])

    async def test_thumbnail(self) -> None:
        """Shows MED-4, MED-8."""
        name = await self.upload(picture(800, 600), "p.png")
        status, body, headers = await fetch(
            self.bob, "GET", f"{MEDIA}/thumbnail/{name}", width=96, height=96, method="crop"
        )
        self.assertEqual((status, headers["content-type"].partition("/")[0]), (200, "image"))
        self.assertEqual(opened(body).size, (96, 96))

    async def test_not_there(self) -> None:
        """Shows MED-4."""
        path = f"{MEDIA}/download/{self.home.name}/doesnotexist"
        status, body, _ = await fetch(self.bob, "GET", path)
        self.assertEqual(status, 404, body)

    async def test_to_come(self) -> None:
        """A file that is reserved, and then there. Shows MED-9, MED-4."""
        created = await fetch(self.alice, "POST", "/_matrix/media/v1/create", b"")
        self.assertEqual(created[0], 200, created[1])
        name = json.loads(created[1])["content_uri"].removeprefix("mxc://")
        path = f"{MEDIA}/download/{name}"
        status, body, _ = await fetch(self.bob, "GET", path, timeout_ms=100)
        self.assertNotEqual(status, 200)
        status, body, _ = await fetch(
            self.alice, "PUT", f"/_matrix/media/v3/upload/{name}", b"late"
        )
        self.assertEqual(status, 200, body)
        status, body, _ = await fetch(self.alice, "GET", path)
        self.assertEqual((status, body), (200, b"late"))
