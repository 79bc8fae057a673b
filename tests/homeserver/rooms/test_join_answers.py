"""What answering a join costs."""

from __future__ import annotations

from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.handshake import Admitted, Handshake
from homeserver.rooms.join_answers import JoinAnswers
from homeserver.rooms.requests import AppendRequest
from storage.database import Database
from storage.transaction import Transaction
from tests.federation.server.scene import Scene


class CostTest(Scene):
    async def statements(self, members: int) -> list[int]:
        """How many statements the answers take, with all members and without."""
        room_id = await self.room("10", name="Large")
        users = [f"@u{number}:{self.hearth.name}" for number in range(members)]
        joins = [EventTemplate("m.room.member", u, {"membership": "join"}, u) for u in users]
        services = self.hearth.homeserver.services
        await services[Appender].append(AppendRequest(room_id, joins))
        join = await self.event(room_id)
        admitted: Admitted = await services[Handshake].send(
            self.peer.name, room_id, join.event_id, join.pdu, "join"
        )
        answers, db = services[JoinAnswers], services[Database]
        found = []
        for omit_members in (False, True):

            def count(txn: Transaction, omit: bool = omit_members) -> int:
                answers._join(txn, admitted, omit)
                return txn.statements

            found.append(await db.read(count))
        return found

    async def test_members_cost_no_statements(self) -> None:
        """Shows FJ-6."""
        await self.begin()
        few, many = await self.statements(5), await self.statements(700)
        # The state tree is one level deeper.
        self.assertLessEqual(many[0], few[0] + 3)
        self.assertLessEqual(many[1], few[1] + 3)
