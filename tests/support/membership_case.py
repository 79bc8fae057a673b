"""Three users of one server, for tests of memberships."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.room_state import content_of, membership_of
from tests.support.server import TestServer, User, make_server

MEMBER = "m.room.member"


class MembershipCase(TestCase):
    server: TestServer
    alice: User
    bob: User
    carol: User

    async def set_up(self, **settings: Any) -> None:
        self.server = await make_server(self, **settings)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.carol = await self.server.register("carol")

    async def refused(
        self, user: User, path: str, body: Any, status: int = 403, errcode: str = "M_FORBIDDEN"
    ) -> None:
        answer = await user.call("POST", path, body)
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode), body)

    async def member(self, room_id: str, user: User) -> dict[str, Any]:
        content = await content_of(self.server, room_id, MEMBER, user.user_id)
        assert content is not None
        return content

    async def is_(self, room_id: str, user: User, membership: str | None) -> None:
        self.assertEqual(await membership_of(self.server, room_id, user.user_id), membership)

    async def guest(self) -> User:
        status, body = await self.server.client.post(
            "/_matrix/client/v3/register", {}, query={"kind": "guest"}
        )
        self.assertEqual(status, 200, body)
        return User(self.server, body["user_id"], body["access_token"], body["device_id"])
