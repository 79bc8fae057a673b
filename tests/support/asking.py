"""Another server that asks a test server, without sockets: its requests are really signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from federation.client.signer import RequestSigner, encode_content
from homeserver.core.signing import encode_base64
from homeserver.core.types import JsonObject
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.requests import AppendRequest
from storage import server_keys
from storage.server_keys import Answer as KeyAnswer
from storage.server_keys import NewKey
from tests.support.client import Answer
from tests.support.events import test_key
from tests.support.server import SERVER_NAME, TestServer

_FAR = 2**52


class AskingServer:
    """A server whose key the asked one knows. `users` of it can be put into rooms."""

    def __init__(self, server: TestServer, name: str) -> None:
        """Use `start`."""
        self.server = server
        self.name = name
        self.key = test_key(name)
        self._signer = RequestSigner(name, self.key)

    @classmethod
    async def start(cls, server: TestServer, name: str = "203.0.113.9") -> AskingServer:
        """A new server, of which the asked one has the key.

        What is sent to the address fails at once: it is in a range that is refused.
        """
        asking = cls(server, name)
        key = NewKey(encode_base64(bytes(asking.key.verify_key)), _FAR, False)
        answer = KeyAnswer(name, {asking.key.key_id: key}, _FAR, 0, True, "{}")
        await server.homeserver.db.write(server_keys.store, [answer], 0)
        return asking

    def user(self, localpart: str = "bob") -> str:
        """The ID of a user of this server."""
        return f"@{localpart}:{self.name}"

    async def get(self, path: str, *parts: str, query: Mapping[str, Any] | None = None) -> Answer:
        """GET below /_matrix/federation/v1; the `{}` of the path are filled with `parts`."""
        return await self._request("GET", _filled(path, parts, query), None)

    async def post(self, path: str, *parts: str, json: JsonObject) -> Answer:
        """POST below /_matrix/federation/v1."""
        return await self._request("POST", _filled(path, parts, None), json)

    async def _request(self, method: str, uri: str, json: JsonObject | None) -> Answer:
        content = None if json is None else encode_content(json)
        headers = {"Authorization": self._signer.authorization(method, uri, SERVER_NAME, content)}
        return await self.server.client.request(method, uri, body=content or b"", headers=headers)

    async def membership(
        self, room_id: str, membership: str = "join", localpart: str = "bob"
    ) -> str:
        """Let a user of this server join (or leave) a room, as if it had asked for that; the
        event's ID."""
        user_id = self.user(localpart)
        return await self._member(room_id, user_id, membership, user_id)

    async def invited(self, room_id: str, sender: str, localpart: str = "bob") -> str:
        """Let somebody in the room invite a user of this server; the event's ID."""
        return await self._member(room_id, sender, "invite", self.user(localpart))

    async def _member(self, room_id: str, sender: str, membership: str, user_id: str) -> str:
        template = EventTemplate("m.room.member", sender, {"membership": membership}, user_id)
        services = self.server.homeserver.services
        appended = await services[Appender].append(AppendRequest(room_id, [template]))

        return appended.event_ids[0]


def _filled(path: str, parts: tuple[str, ...], query: Mapping[str, Any] | None) -> str:
    uri = "/_matrix/federation/v1" + path.format(*(quote(part, safe="") for part in parts))
    return uri if not query else f"{uri}?{urlencode(query, doseq=True)}"
