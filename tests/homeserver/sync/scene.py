"""What tests of `/sync` share: two users, a room, and looking into answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.server import TestServer, User, make_server

Json = dict[str, Any]


class SyncTestCase(TestCase):
    """Alice, who makes rooms, and Bob."""

    timeout = 30
    server: TestServer
    alice: User
    bob: User

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self.prepare())

    async def prepare(self) -> None:
        self.server = await make_server(self)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def shared_room(self, **body: Any) -> str:
        """A room that both are in."""
        room_id = await self.alice.create_room(**{"preset": "public_chat", **body})
        await self.bob.join(room_id)
        return room_id

    async def token(self, user: User, **query: Any) -> str:
        """The `next_batch` of a sync now."""
        answer: str = (await user.sync(**query))["next_batch"]
        return answer

    def poll(self, user: User, since: str, **query: Any) -> Deferred[Any]:
        """A sync that waits."""
        return Deferred.fromCoroutine(user.sync(since, timeout=20_000, **query))


def filtered(**room: Any) -> str:
    """The `filter` parameter with these parts of `room`."""
    return json.dumps({"room": room})


def joined(answer: Json, room_id: str) -> Json:
    """The section of a joined room."""
    section: Json = answer["rooms"]["join"][room_id]
    return section


def bodies(section: Json) -> list[str]:
    """The texts in a timeline."""
    return [
        event["content"]["body"]
        for event in section["timeline"]["events"]
        if event["type"] == "m.room.message"
    ]


def ids(events: list[Json]) -> list[str]:
    """Event IDs."""
    return [event["event_id"] for event in events]


def state(section: Json, name: str = "state") -> dict[tuple[str, str], Json]:
    """The content of the state events of a section, by key."""
    return {
        (event["type"], event["state_key"]): event["content"] for event in section[name]["events"]
    }


def whole_state(section: Json) -> dict[tuple[str, str], Json]:
    """State and timeline together."""
    found = state(section)
    for event in section["timeline"]["events"]:
        if "state_key" in event:
            found[event["type"], event["state_key"]] = event["content"]
    return found


def members(section: Json, pick: Callable[[Json], bool] = lambda event: True) -> set[str]:
    """The users whose member events are in `state`."""
    return {
        event["state_key"]
        for event in section["state"]["events"]
        if event["type"] == "m.room.member" and pick(event)
    }
