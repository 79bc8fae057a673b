"""Rooms that this server left and entered again, and rooms that several processes write to."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.event import Event
from homeserver.rooms.receive import Receiver
from storage import memberships, rooms
from storage.database import Database
from storage.events import ACCEPTED
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database
from tests.support.events import ALICE as REMOTE
from tests.support.events import BOB, CAROL
from tests.support.rooms import ALICE, RoomServices

DORA = "@dora:d.example"
LOCAL = "@erin:hearth.test"


@on_each_database
class ReturningTest(ReceivingCase):
    async def adopt(self) -> None:
        state = list(self.room.state.values())
        chain = [e for e in self.room.events.values() if e.is_state and e not in state]
        join = self.room.join(ALICE)
        judged = await self.receiver.adopt(join, self.room.version, state, chain)
        self.assertEqual(judged.status, ACCEPTED)

    async def test_the_room_went_on_meanwhile(self) -> None:
        """State, members and servers are those of the room as it is now."""
        for version in ("1", "11", "12"):
            await self.enter(version, users={BOB: 100})
            await self.receive(self.room.join(LOCAL), self.room.message(BOB))
            await self.receive(self.room.leave(LOCAL), self.room.leave(ALICE))
            self.room.leave(CAROL)
            self.room.join(DORA)
            self.room.set_state("m.room.topic", {"topic": "new"}, BOB)
            self.room.join(BOB, {"displayname": "Bob"})
            self.room.ban(REMOTE, LOCAL)
            await self.adopt()
            await self.assert_state()
            after = [self.room.message(BOB), self.room.leave(DORA), self.room.join(CAROL)]
            self.assertEqual(await self.receive(*after), [ACCEPTED] * 3)
            await self.assert_state()

            def read(txn: Transaction) -> dict[str, str]:
                nid = rooms.nid(txn, self.room.room_id)
                assert nid is not None
                found = {}
                for user_id in (ALICE, LOCAL):
                    row = memberships.get(txn, nid, user_id)
                    last = memberships.at(txn, nid, user_id, 2**60)
                    assert row is not None and last is not None
                    self.assertEqual(row.membership, last.membership)
                    found[user_id] = row.membership
                return found

            self.assertEqual(await self.db.read(read), {ALICE: "join", LOCAL: "ban"})
            self.db = await self.open()

    async def test_what_came_while_this_server_was_away_comes_again(self) -> None:
        """Events of the time between are history, and change nothing."""
        await self.enter("11", users={BOB: 100})
        await self.receive(self.room.leave(ALICE))
        missed = [
            self.room.set_state("m.room.topic", {"topic": "one"}, BOB),
            self.room.message(BOB),
            self.room.set_state("m.room.topic", {"topic": "two"}, BOB),
        ]
        await self.adopt()
        heads = await self.heads()
        self.assertEqual(await self.receive(*missed), [ACCEPTED] * 3)
        self.assertEqual(await self.heads(), heads)
        await self.assert_state()


@on_each_database
class ProcessesTest(ReceivingCase):
    timeout = 120

    async def prepare(self) -> None:
        self.url = self.database_url()
        self.db = await self.open(self.url)

    async def test_two_processes(self) -> None:
        """What others say and what is said here, at the same time in two processes."""
        await self.enter("11", users={BOB: 50})
        other_db: Database = await self.open(self.url)
        other = RoomServices(other_db)
        receivers = [self.receiver, Receiver(other_db, other.appender, reactor)]
        branches = [self.room.fork(), self.room.fork()]
        told: list[Event] = []
        work: list[Deferred[object]] = []
        for number in range(20):
            batch = [
                branches[0].message(CAROL, f"{number}"),
                branches[1].set_state("m.room.topic", {"topic": f"{number}"}, BOB),
                branches[1].join(BOB, {"displayname": f"{number}"}),
            ]
            told += batch
            known = list(told)
            # Both get the same, and everything before it again.
            doing = [receiver.add(self.room.room_id, known) for receiver in receivers]
            saying = [services.say(self.room.room_id) for services in (self.services, other)]
            work += [Deferred.fromCoroutine(each) for each in (*doing, *saying)]
        await gatherResults(work)
        for event in told:
            self.assertEqual((await self.services.row(event.event_id)).status, ACCEPTED)
        found = await self.state()
        self.assertEqual(found["m.room.member", BOB], told[-1].event_id)
        self.assertEqual(found["m.room.topic", ""], told[-2].event_id)
        said = await other.say(self.room.room_id)
        self.assertEqual(await self.heads(), {said})
