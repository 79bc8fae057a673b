"""Sticky events between servers (MSC4354)."""

from __future__ import annotations

from typing import Any

from tests.federation.server.scene import Scene
from tests.federation.test_queries import TwoServersCase
from tests.support.federation import eventually
from tests.support.room_case import TEXT, q
from tests.support.server import User

QUERY = {"org.matrix.msc4354.sticky_duration_ms": 3_600_000}
NO_TIMELINE = '{"room":{"timeline":{"limit":0}}}'


class StickyEventsTest(TwoServersCase):
    async def stick(self, user: User, room_id: str, name: str) -> str:
        path = f"/rooms/{q(room_id)}/send/m.room.message/{name}"
        event_id: str = (await user.ok("PUT", path, TEXT, query=QUERY))["event_id"]
        return event_id

    async def stuck(self, user: User, room_id: str) -> set[str]:
        """What a new client of a user is told."""
        rooms: Any = (await user.sync(filter=NO_TIMELINE)).get("rooms", {}).get("join", {})
        found = rooms.get(room_id, {}).get("msc4354_sticky", {}).get("events", [])
        return {event["event_id"] for event in found}

    async def test_a_server_that_enters_is_told(self) -> None:
        """Of the events of this server that are sticky, though it was not there."""
        await self.begin()
        room_id = await self.alice.create_room(preset="public_chat")
        first = await self.stick(self.alice, room_id, "a")
        await self.alice.send(room_id)
        await self.bob.ok("POST", f"/join/{q(room_id)}", query={"via": self.here.name})

        async def is_told() -> bool:
            return await self.stuck(self.bob, room_id) == {first}

        await eventually(is_told)
        second = await self.stick(self.bob, room_id, "b")

        async def both() -> bool:
            return await self.stuck(self.alice, room_id) == {first, second}

        await eventually(both)

    async def test_after_an_outage(self) -> None:
        await self.begin()
        room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.ok("POST", f"/join/{q(room_id)}", query={"via": self.here.name})
        self.federation.cut(self.here, self.there)
        event_id = await self.stick(self.alice, room_id, "a")
        for _ in range(12):
            await self.alice.send(room_id)
        await self.here.restart()
        self.federation.heal()
        await self.alice.send(room_id)

        async def is_told() -> bool:
            return await self.stuck(self.bob, room_id) == {event_id}

        await eventually(is_told)


class SoftFailedTest(Scene):
    async def test_told_once_their_sender_may_send_them(self) -> None:
        await self.begin()
        room_id = await self.room()
        await self.peer.join(self.hearth.name, room_id, "trudy")
        room = await self.peer.join(self.hearth.name, room_id)
        body = {"user_id": self.mallory}
        await self.alice.ok("POST", f"/rooms/{q(room_id)}/kick", body)
        many = {
            text: room.make(
                "m.room.message",
                {"body": text},
                self.mallory,
                msc4354_sticky={"duration_ms": duration},
                ts=self.peer.now() - age,
            )
            for text, duration, age in (
                ("sticky", 3_600_000, 0),
                ("over", 1000, 2000),
                ("no number", True, 0),
                ("long over", 2**50, 3_700_000),
            )
        }
        await self.peer.send(self.hearth.name, list(many.values()))
        since = (await self.alice.sync())["next_batch"]
        self.assertEqual(self.stuck(await self.alice.sync(filter=NO_TIMELINE), room_id), [])
        await self.peer.join(self.hearth.name, room_id)
        expected = [many["sticky"].event_id]
        for answer in (await self.alice.sync(since), await self.alice.sync(filter=NO_TIMELINE)):
            self.assertEqual(self.stuck(answer, room_id), expected)

    def stuck(self, answer: Any, room_id: str) -> list[str]:
        room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        return [event["event_id"] for event in room.get("msc4354_sticky", {}).get("events", [])]
