"""Finding events by time."""

from __future__ import annotations

from typing import Any

from homeserver.core.ids import RoomID, UserID
from homeserver.rooms import timestamp as timestamp_module
from homeserver.rooms.send import Sending
from homeserver.web.request import Requester
from tests.support.client import Answer
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User


class TimestampTest(RoomTestCase):
    async def send_at(self, ts: int, name: str) -> str:
        """Send an event with a chosen time, as application services may."""
        return await self.server.homeserver.services[Sending].send_event(
            Requester(UserID(self.alice.user_id), "D", appservice_id="bridge"),
            RoomID(self.room_id),
            "custom",
            {},
            name,
            ts=ts,
        )

    async def near(self, user: User, ts: object, direction: str) -> Answer:
        path = f"/_matrix/client/v1/rooms/{q(self.room_id)}/timestamp_to_event"
        return await user.call("GET", path, query={"ts": ts, "dir": direction})

    async def found(self, user: User, ts: int, direction: str) -> Any:
        status, body = await self.near(user, ts, direction)
        self.assertEqual(status, 200, body)
        return body["event_id"]

    async def test_the_nearest_in_each_direction(self) -> None:
        """Shows BF-12."""
        await self.start()
        future = 10**13
        first = await self.send_at(future + 1000, "a")
        second = await self.send_at(future + 2000, "b")
        for ts, direction, expected in (
            (future + 500, "f", first),
            (future + 1000, "f", first),
            (future + 1001, "f", second),
            (future + 1999, "b", first),
            (future + 2000, "b", second),
            (future + 9000, "b", second),
        ):
            self.assertEqual(await self.found(self.alice, ts, direction), expected)
        answer = await self.near(self.alice, future + 1000, "f")
        self.assertEqual(answer.body, {"event_id": first, "origin_server_ts": future + 1000})
        old = f"/_matrix/client/unstable/org.matrix.msc3030/rooms/{q(self.room_id)}"
        body = await self.alice.ok(
            "GET", f"{old}/timestamp_to_event", query={"ts": future, "dir": "f"}
        )
        self.assertEqual(body["event_id"], first)

    async def test_nothing_there(self) -> None:
        """Shows BF-12."""
        await self.start()
        self.assert_error(await self.near(self.alice, 0, "b"), 404, "M_NOT_FOUND")
        self.assert_error(await self.near(self.alice, -5, "b"), 404, "M_NOT_FOUND")
        self.assert_error(await self.near(self.alice, 10**13, "f"), 404, "M_NOT_FOUND")

    async def test_equal_times_go_by_the_graph(self) -> None:
        """Shows BF-12."""
        await self.start()
        future = 10**13
        first = await self.send_at(future, "a")
        second = await self.send_at(future, "b")
        self.assertEqual(await self.found(self.alice, future, "f"), first)
        self.assertEqual(await self.found(self.alice, future, "b"), second)

    async def test_only_what_the_reader_may_see(self) -> None:
        """Shows HV-5."""
        visibility = {
            "type": "m.room.history_visibility",
            "content": {"history_visibility": "joined"},
        }
        await self.start(initial_state=[visibility])
        self.patch(timestamp_module, "_BATCH", 2)
        past = 1000
        for n in range(5):
            await self.send_at(past + n, f"hidden{n}")
        await self.bob.join(self.room_id)
        shown = await self.send_at(past + 10, "shown")
        self.assertEqual(await self.found(self.bob, 0, "f"), shown)
        self.assert_error(await self.near(self.bob, past + 5, "b"), 404, "M_NOT_FOUND")
        await self.bob.leave(self.room_id)
        later = await self.send_at(past + 11, "later")
        self.assertNotEqual(await self.found(self.bob, past + 11, "f"), later)
        self.assertEqual(await self.found(self.bob, past + 12, "b"), shown)

    async def test_outside_the_room(self) -> None:
        await self.start()
        for room_id in (self.room_id, "!unknown"):
            self.room_id = room_id
            self.assert_error(await self.near(self.bob, 0, "f"), 403, "M_FORBIDDEN")

    async def test_bad_parameters(self) -> None:
        """Shows RD-9."""
        await self.start()
        self.assert_error(await self.near(self.alice, "x", "f"), 400, "M_INVALID_PARAM")
        self.assert_error(await self.near(self.alice, "", "f"), 400, "M_INVALID_PARAM")
        self.assert_error(await self.near(self.alice, 0, "x"), 400, "M_INVALID_PARAM")
