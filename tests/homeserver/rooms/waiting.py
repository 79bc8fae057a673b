"""Rooms with local members, and receivers by script, for tests of events that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from federation.client.pdus import CheckedPdu
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.rooms.backlog import Backlog
from homeserver.rooms.familiar import Familiar, NotAsPresumed
from homeserver.rooms.inbound import Inbound
from homeserver.rooms.receive import Keeper
from storage import memberships, received, rooms
from storage.bus import MemoryBus
from storage.database import Database
from storage.feed import Feed
from storage.memberships import MembershipRow
from storage.received import Bounds
from storage.rooms import RoomRow
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, reactor
from tests.support.events import RoomBuilder

SERVER = "hearth.test"
ORIGIN = "a.example"


class Verdict(NamedTuple):
    """See `homeserver.rooms.receive.Judged`."""

    status: int
    reason: str | None = None


def shared(hold: Deferred[None]) -> Deferred[None]:
    """Fires when `hold` does; cancelling it does not cancel that."""
    waiter: Deferred[None] = Deferred()

    def fired(result: None) -> None:
        if not waiter.called:
            waiter.callback(None)

    hold.addCallback(fired)
    return waiter


class Script:
    """A receiver and gap filler. `verdicts` by event ID; what is not there is accepted.

    `calls` has (origin, room, event IDs) of what was begun; `hold` keeps rooms and servers
    waiting; `fails` are events that it cannot deal with.
    """

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.calls: list[tuple[str, str, list[str]]] = []
        self.hold: dict[str, Deferred[None]] = {}
        self.fails: set[str] = set()
        self.failure: Exception = ValueError("on purpose")
        self.presumed: list[Familiar | None] = []
        """How rooms were presumed to be, of each call of `add`; it is not so if `is_strange`."""
        self.is_strange = False

    async def add(
        self,
        room_id: str,
        events: Sequence[Event],
        /,
        *,
        keeper: Keeper | None = None,
        presumed: Familiar | None = None,
    ) -> Mapping[str, Verdict]:
        self.presumed.append(presumed)
        if presumed is not None and self.is_strange:
            raise NotAsPresumed
        if keeper is not None:
            verdicts: Any = self._verdicts(events)
            for _ in range(2):  # A transaction of the database may have to be repeated.
                keeper.begin()
                keeper.keep(cast(Transaction, None), events, verdicts)
        return await self._take("", room_id, events)

    async def receive(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> Mapping[str, Verdict]:
        return await self._take(origin, room_id, events)

    async def _take(
        self, origin: str, room_id: str, events: Sequence[Event]
    ) -> Mapping[str, Verdict]:
        names = [event.event_id for event in events]
        self.calls.append((origin, room_id, names))
        for name in (room_id, origin):
            if name in self.hold:
                await shared(self.hold[name])
        if self.fails & set(names):
            raise self.failure
        return self._verdicts(events)

    def _verdicts(self, events: Sequence[Event]) -> dict[str, Verdict]:
        names = [event.event_id for event in events]
        return {name: self.verdicts.get(name, Verdict(0)) for name in names}


class Trusting:
    """A checker that lets everything through that has an ID. `hold`: it waits."""

    def __init__(self) -> None:
        self.hold: dict[str, Deferred[None]] = {}
        self.calls = 0

    async def check(self, pdus: Sequence[Any], version: RoomVersion) -> list[CheckedPdu]:
        self.calls += 1
        for sender in {pdu["sender"].partition(":")[2] for pdu in pdus}:
            if sender in self.hold:
                await self.hold[sender]
        found = []
        for pdu in pdus:
            event = Event.from_pdu(pdu, version)
            found.append(CheckedPdu(event.event_id, event, None))
        return found


class NoInvites:
    def __init__(self) -> None:
        self.events: list[Event] = []

    async def withdrawn(self, origin: str, event: Event) -> bool:
        self.events.append(event)
        return False


def put_room(txn: Transaction, room: RoomBuilder, room_nid: int, membership: str = "join") -> None:
    """The room is known here, and has a local member."""
    row = RoomRow(room_nid, room.room_id, room.version.identifier, 1, 1, (), b"", 1, 0, 0, 1, 1, 0)
    rooms.put(txn, [row])
    user = f"@local:{SERVER}"
    member = MembershipRow(
        room_nid, user, membership, "$m", 0, user, 1, True, False, None, None, None
    )
    memberships.put(txn, [member])


class WaitingCase(DatabaseTestCase):
    """Rooms `one` (number 1) and `two` (number 2); `clock` is the services' clock."""

    async def prepare(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.url = self.database_url()
        self.db = await self.open(self.url)
        self.one = RoomBuilder.started("10", members=["@b:b.example"])
        self.two = RoomBuilder.started("10", room_id=None, creator="@c:c.example")
        await self.db.write(put_room, self.one, 1)
        await self.db.write(put_room, self.two, 2)
        self.script, self.checker, self.invites = Script(), Trusting(), NoInvites()
        self.backlog = self.make_backlog()
        self.inbound = Inbound(
            self.db,
            self.checker,
            self.script,
            self.backlog,
            self.invites,
            self.clock,
            SERVER,
        )

    def make_backlog(self, db: Database | None = None, bounds: Bounds | None = None) -> Backlog:
        db = db or self.db
        feed = Feed(db, MemoryBus(self.clock), self.clock)
        return Backlog(db, feed, self.script, self.clock, bounds)

    def begin(self, backlog: Backlog) -> None:
        """Start, and stop after the test."""
        backlog.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(backlog.stop()))

    def message(self, room: RoomBuilder, body: str = "x", sender: str | None = None) -> Event:
        content = {"msgtype": "m.text", "body": body}
        return room.event("m.room.message", sender or room.creator, content)

    async def waiting(self, room_nid: int = 1) -> dict[str, int]:
        """Events that wait, and how often each was tried."""
        return await self.db.read(received.waiting, room_nid)

    async def pass_time(self, seconds: float) -> None:
        """Let the clock go on, and what becomes due be done."""
        self.clock.advance(seconds)
        await self.backlog.idle()


__all__ = ["ORIGIN", "SERVER", "Script", "Verdict", "WaitingCase", "put_room", "reactor"]
