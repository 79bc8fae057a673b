"""What tests of sliding sync share: asking, and looking into answers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.homeserver.sync.scene import SyncTestCase
from tests.support.client import Answer
from tests.support.server import User

Json = dict[str, Any]
PATH = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

STATE = [["m.room.create", ""], ["m.room.name", ""], ["m.room.member", "$ME"]]


def window(*ranges: tuple[int, int], limit: int = 5, **more: Any) -> Json:
    """A list with these ranges."""
    config: Json = {"required_state": STATE, "timeline_limit": limit, **more}
    config["ranges"] = [list(pair) for pair in ranges or ((0, 99),)]
    return config


class SlidingTestCase(SyncTestCase):
    """Alice, who makes rooms, and Bob, who syncs."""

    async def call(self, user: User, pos: str | None = None, **body: Any) -> Answer:
        """One request, without waiting unless `timeout` is given (ms)."""
        query = {"timeout": body.pop("timeout", 0)}
        if pos is not None:
            query["pos"] = pos
        return await user.call("POST", PATH, body, query=query)

    async def slide(self, user: User, pos: str | None = None, **body: Any) -> Any:
        """One request that must succeed; of all rooms if it names none."""
        if "lists" not in body and "room_subscriptions" not in body:
            body["lists"] = {"all": window()}
        status, answer = await self.call(user, pos, **body)
        self.assertEqual(status, 200, answer)
        return answer

    def wait(self, user: User, pos: str, **body: Any) -> Deferred[Any]:
        """A request that waits."""
        return Deferred.fromCoroutine(self.slide(user, pos, timeout=20_000, **body))


def texts(section: Json) -> list[str]:
    """The texts in a timeline."""
    return [
        event["content"]["body"]
        for event in section["timeline"]
        if event["type"] == "m.room.message"
    ]


def required(section: Json) -> dict[tuple[str, str], Json]:
    """The content of `required_state`, by key."""
    return {
        (event["type"], event["state_key"]): event["content"]
        for event in section.get("required_state", ())
    }
