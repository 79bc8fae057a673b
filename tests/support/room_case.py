"""A test case with a room over the API."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from homeserver.core.tokens import SyncToken
from tests.support.client import Answer
from tests.support.server import TestServer, User, make_server

q = partial(quote, safe="")
"""One segment of a path."""

TEXT = {"msgtype": "m.text", "body": "hello"}


async def log_in(server: TestServer, user: User, device_id: str | None = None) -> User:
    """Another session of a user."""
    body: dict[str, Any] = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": "wonderland",
    }
    if device_id is not None:
        body["device_id"] = device_id
    status, answer = await server.client.post("/_matrix/client/v3/login", body)
    assert status == 200, answer
    return User(server, user.user_id, answer["access_token"], answer["device_id"])


class RoomTestCase(TestCase):
    """A server with Alice, Bob, and a public room of Alice's."""

    async def start(self, **room: Any) -> str:
        self.server = await make_server(self)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.room_id = await self.alice.create_room(**{"preset": "public_chat", **room})
        return self.room_id

    async def put(self, user: User, path: str, body: Any = TEXT) -> Answer:
        """PUT below the room."""
        return await user.call("PUT", f"/rooms/{q(self.room_id)}/{path}", body)

    async def put_ok(self, user: User, path: str, body: Any = TEXT) -> str:
        status, answer = await self.put(user, path, body)
        self.assertEqual(status, 200, answer)
        event_id: str = answer["event_id"]
        return event_id

    async def get(self, user: User, path: str, **query: Any) -> Any:
        """GET below the room."""
        return await user.ok("GET", f"/rooms/{q(self.room_id)}/{path}", query=query)

    async def event(self, user: User, event_id: str) -> Any:
        return await self.get(user, f"event/{q(event_id)}")

    async def messages(self, user: User) -> list[Any]:
        """The room's history, newest first."""
        chunk: list[Any] = (await self.get(user, "messages", dir="b", limit=100))["chunk"]
        return chunk

    def assert_error(self, answer: Answer, status: int, errcode: str) -> None:
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode))

    async def ids(self, user: User, **query: Any) -> list[str]:
        """IDs of a page of the room's history."""
        return [e["event_id"] for e in (await self.get(user, "messages", **query))["chunk"]]

    async def now(self) -> str:
        """The token that /sync would give out now."""
        return str(SyncToken(await self.server.homeserver.db.position(), 0))
