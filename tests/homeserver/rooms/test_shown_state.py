"""What rooms are shown as by text, against the general way: `/messages`, members, state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, quote

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.core.types import JsonObject
from homeserver.rooms import shown_state
from homeserver.rooms.view import RoomView, Seen
from homeserver.web.responses import encode_json
from tests.homeserver.sync.life import Life, forget_age
from tests.support.server import User, make_server

PATHS = [
    "messages?dir=b&limit=50",
    "messages?dir=f&limit=20",
    "members",
    "members?membership=join",
    "members?not_membership=leave",
    "state",
]


def _general(
    view: RoomView, seen: Sequence[Seen], now_ms: int, *, relations: Mapping[str, JsonObject]
) -> list[bytes]:
    return [encode_json(event) for event in view.render(seen, now_ms, relations=relations)]


class SameAsGeneralTest(TestCase):
    timeout = 120

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self.prepare())

    async def prepare(self) -> None:
        self.server = await make_server(self)
        self.users = [await self.server.register(name) for name in ("alice", "bob", "carol")]

    async def read(self, user: User, room_id: str, path: str) -> Any:
        name, _, query = path.partition("?")
        url = f"/rooms/{quote(room_id)}/{name}"
        status, answer = await user.call("GET", url, query=parse_qsl(query))
        if status != 200:
            return answer
        events = answer if name == "state" else answer["chunk"]
        for event in events:
            forget_age(event)
        if name != "messages":
            events.sort(key=lambda event: event["event_id"])
        return answer

    async def test_whatever_happens(self) -> None:
        life = Life(self.users, 3)
        for visibility in ("shared", "joined"):
            content = {"history_visibility": visibility}
            kind = "m.room.history_visibility"
            await life.make_room(initial_state=[{"type": kind, "content": content}])
        taken = 0
        of_room = shown_state.of_room

        def counting(*args: Any, **more: Any) -> Any:
            nonlocal taken
            found = of_room(*args, **more)
            taken += found is not None
            return found

        for turn in range(8):
            for _ in range(8):
                await life.step()
            for user in life.users:
                for room_id in life.rooms:
                    for path in PATHS[turn % 2 :: 2]:
                        with mock.patch.object(shown_state, "of_room", counting):
                            fast = await self.read(user, room_id, path)
                        with (
                            mock.patch.object(RoomView, "render_text", _general),
                            mock.patch.object(shown_state, "of_room", lambda *_, **__: None),
                        ):
                            general = await self.read(user, room_id, path)
                        self.assertEqual(fast, general, path)
        self.assertGreater(taken, 20)
