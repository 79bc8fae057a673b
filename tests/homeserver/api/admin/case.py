"""A test case with an administrator, a user and a room."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from tests.support.admin import make_admin
from tests.support.client import Answer
from tests.support.room_case import RoomTestCase
from tests.support.server import make_server

V1 = "/_synapse/admin/v1"
V2 = "/_synapse/admin/v2"


class AdminTestCase(RoomTestCase):
    """Alice is an administrator, Bob is not."""

    def setUp(self) -> None:
        captured = capture_logs()
        self.logged = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)

    @property
    def audit(self) -> list[Any]:
        """What was logged of what administrators did."""
        return [line for line in self.logged if line["event"] == "administrator"]

    async def prepare(self, **overrides: Any) -> None:
        self.server = await make_server(self, **overrides)
        self.alice = await make_admin(await self.server.register("alice"))
        self.bob = await self.server.register("bob")

    async def refused(
        self, errcode: str, method: str, path: str, body: Any = None, status: int = 400
    ) -> str:
        """Let Alice make a request that is refused; the sentence that says why."""
        answer: Answer = await self.alice.call(method, path, body)
        self.assert_error(answer, status, errcode)
        told: str = answer.body["error"]
        return told

    async def unknown(self, method: str, path: str, body: Any = None) -> None:
        """Let Alice ask for what is not there."""
        await self.refused("M_NOT_FOUND", method, path, body, status=404)
