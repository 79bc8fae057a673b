"""Rooms that two users share."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.core.errors import MatrixError
from homeserver.core.ids import UserID
from homeserver.rooms.mutual import TOKEN_LIFETIME_MS, MutualRooms
from tests.support.server import make_server

PATH = "/_matrix/client/v1/mutual_rooms"
OLD_PATH = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"


class MutualRoomsTest(TestCase):
    async def start(self) -> None:
        self.server = await make_server(self)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def shared(self, count: int) -> list[str]:
        """Rooms that both are in."""
        found = []
        for _ in range(count):
            room_id = await self.alice.create_room(preset="public_chat")
            await self.bob.join(room_id)
            found.append(room_id)
        return found

    async def find(self, **query: str) -> Any:
        return await self.alice.ok("GET", PATH, query=query)

    async def test_rooms_that_both_are_in_now(self) -> None:
        """Shows RD-10."""
        await self.start()
        found = await self.shared(3)
        await self.alice.create_room(preset="public_chat")
        invited = await self.alice.create_room(invite=[self.bob.user_id])
        await self.bob.leave(found[0])
        answer = await self.find(user_id=self.bob.user_id)
        self.assertEqual(answer, {"joined": found[1:], "count": 2})
        self.assertNotIn(invited, answer["joined"])
        old = await self.alice.ok("GET", OLD_PATH, query={"user_id": self.bob.user_id})
        self.assertEqual(old, answer)

    async def test_users_who_are_not_known(self) -> None:
        """Shows RD-10."""
        await self.start()
        for name in ("@nobody:hearth.test", "@somebody:elsewhere.example"):
            self.assertEqual(await self.find(user_id=name), {"joined": [], "count": 0})

    async def test_users_that_cannot_be_asked_for(self) -> None:
        """Shows RD-10."""
        await self.start()
        for query in (
            {"user_id": self.alice.user_id},
            {"user_id": "nonsense"},
            {"user_id": "@no-domain"},
            {"user_id": "@:hearth.test"},
            {"user_id": "@ä:hearth.test"},
            {"user_id": self.bob.user_id, "from": "nonsense"},
            {"user_id": self.bob.user_id, "from": "m1_1"},
        ):
            status, body = await self.alice.call("GET", PATH, query=query)
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"), query)
        status, body = await self.alice.call("GET", PATH)
        self.assertEqual((status, body["errcode"]), (400, "M_MISSING_PARAM"))

    async def test_pages_and_how_long_their_tokens_are_good(self) -> None:
        """Shows RD-10."""
        await self.start()
        rooms = await self.shared(5)
        clock = Clock()
        clock.advance(1_000_000)
        service = MutualRooms(self.server.homeserver.db, clock, page=2)
        alice, bob = UserID(self.alice.user_id), UserID(self.bob.user_id)
        found: list[str] = []
        token = None
        first = None
        while True:
            page = await service.find(alice, bob, token)
            self.assertEqual(page.total, 5)
            found += page.joined
            token = page.next_batch
            first = first or token
            if token is None:
                break
            clock.advance(600)
        self.assertEqual(found, rooms)
        again = await service.find(alice, bob, first)
        self.assertEqual(again.joined, rooms[2:4])
        clock.advance(TOKEN_LIFETIME_MS / 1000)
        with self.assertRaises(MatrixError) as caught:
            await service.find(alice, bob, first)
        self.assertEqual(caught.exception.errcode, "M_INVALID_PARAM")
