"""A homeserver in a room of another server's, and what other servers tell about it by script.

Nothing goes over the network: `Source` answers in the place of
`federation.client.events.EventsClient`, from the model of the room (`PeerRoom`), or by script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from federation.client.errors import RemoteHttpError, Unreachable
from federation.client.events import StateIds, StatePdus, TimedEvent
from federation.client.keyring import ServerKey
from federation.client.pdus import PduChecker
from federation.client.requests import FederationClient
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import KnownKey, SigningKey
from homeserver.core.types import JsonObject
from homeserver.rooms.backfill import Backfill
from homeserver.rooms.context import EventContext
from homeserver.rooms.fetch import Fetcher
from homeserver.rooms.missing import MissingEvents
from homeserver.rooms.receive import Receiver
from homeserver.rooms.timeline import Timeline
from homeserver.rooms.timestamp import EventsByTime
from storage import events, gaps, rooms
from storage.events import EventRow
from storage.gaps import Gap
from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.events import test_key
from tests.support.peer_room import PeerRoom
from tests.support.server import SERVER_NAME, User, make_server

reactor: Any = installed_reactor
PEER = "b.example"
OTHER = "c.example"
BOB = f"@bob:{PEER}"
CAROL = f"@carol:{OTHER}"

Answer = Callable[..., Any]


async def nobody_answers(
    client: FederationClient, method: str, destination: str, *args: Any, **options: Any
) -> Any:
    """In the place of `FederationClient.request`: nothing goes over the network."""
    raise Unreachable(destination, "not in this test")


class Keys:
    """Knows the key that every server has in tests."""

    async def keys_for(self, wanted: Mapping[ServerKey, int]) -> dict[str, dict[str, KnownKey]]:
        found: dict[str, dict[str, KnownKey]] = {}
        for server, _ in wanted:
            key = test_key(server)
            found[server] = {key.key_id: KnownKey(key.verify_key, 2**53 - 1)}
        return found

    def keys_at_hand(self, pdus: Sequence[JsonObject], version: RoomVersion) -> None:
        """None: they have to be asked for."""


class Source:
    """Answers about one room, honestly unless `on` says otherwise.

    `on` maps (server, name of the method) to a function of the method's arguments or to an
    exception; the answer may be a Deferred. `asked` has every (server, name, arguments). Servers
    in `away` never answer.
    """

    def __init__(self, room: PeerRoom) -> None:
        self.room = room
        self.on: dict[tuple[str, str], Answer | Exception] = {}
        self.away: set[str] = set()
        self.asked: list[tuple[str, str, tuple[Any, ...]]] = []

    def count(self, name: str, server: str | None = None) -> int:
        """How often something was asked."""
        return sum(1 for s, n, _ in self.asked if n == name and server in (None, s))

    async def _answer(self, server: str, name: str, honest: Answer, *args: Any) -> Any:
        self.asked.append((server, name, args))
        if server in self.away:
            raise RemoteHttpError(server, 502)
        scripted = self.on.get((server, name))
        if isinstance(scripted, Exception):
            raise scripted
        answer = (scripted or honest)(*args)
        if isinstance(answer, Deferred):
            answer = await answer
        if answer is None:
            raise RemoteHttpError(server, 404, {"errcode": "M_NOT_FOUND"})
        return answer

    async def get_event(self, destination: str, event_id: str) -> Any:
        def honest(event_id: str) -> Any:
            event = self.room.events.get(event_id)
            return None if event is None else event.pdu

        return await self._answer(destination, "event", honest, event_id)

    def state_of(self, event_id: str) -> list[Event] | None:
        event = self.room.events.get(event_id)
        if event is None:
            return None
        return [self.room.events[n] for n in self.room.state_before(event.prev_event_ids).values()]

    def state_ids(self, event_id: str, *, without: Sequence[str] = ()) -> StateIds | None:
        """The honest answer, but for events of some types."""
        state = self.state_of(event_id)
        if state is None:
            return None
        state = [event for event in state if event.type not in without]
        names = tuple(event.event_id for event in state)
        return StateIds(names, tuple(e.event_id for e in self.room.auth_chain(names)))

    async def get_state_ids(self, destination: str, room_id: str, event_id: str) -> StateIds:
        found: StateIds = await self._answer(destination, "state_ids", self.state_ids, event_id)
        return found

    async def get_state(self, destination: str, room_id: str, event_id: str) -> StatePdus:
        def honest(event_id: str) -> Any:
            state = self.state_of(event_id)
            if state is None:
                return None
            chain = self.room.auth_chain(event.event_id for event in state)
            return StatePdus([e.pdu for e in state], [e.pdu for e in chain])

        found: StatePdus = await self._answer(destination, "state", honest, event_id)
        return found

    async def get_event_auth(self, destination: str, room_id: str, event_id: str) -> Sequence[Any]:
        def honest(event_id: str) -> Any:
            return [event.pdu for event in self.room.auth_chain([event_id])]

        found: list[Any] = await self._answer(destination, "event_auth", honest, event_id)
        return found

    async def backfill(
        self, destination: str, room_id: str, event_ids: Sequence[str], limit: int
    ) -> Sequence[Any]:
        def honest(event_ids: Sequence[str], limit: int) -> Any:
            return [event.pdu for event in self.room.history(event_ids, limit)]

        found: list[Any] = await self._answer(destination, "backfill", honest, event_ids, limit)
        return found

    async def get_missing_events(
        self,
        destination: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int,
    ) -> Sequence[Any]:
        def honest(earliest: Any, latest: Any, limit: int, min_depth: int) -> Any:
            return [event.pdu for event in self.room.missing(earliest, latest, limit)]

        found: list[Any] = await self._answer(
            destination, "missing", honest, tuple(earliest), tuple(latest), limit, min_depth
        )
        return found

    async def timestamp_to_event(
        self, destination: str, room_id: str, ts: int, *, backwards: bool
    ) -> TimedEvent:
        def honest(ts: int, backwards: bool) -> Any:
            sign = -1 if backwards else 1
            fit = [
                e
                for name, e in self.room.events.items()
                if name in self.room.states and sign * (e.origin_server_ts - ts) >= 0
            ]
            if not fit:
                return None
            event = min(fit, key=lambda e: abs(e.origin_server_ts - ts))
            return TimedEvent(event.event_id, event.origin_server_ts)

        found: TimedEvent = await self._answer(destination, "timestamp", honest, ts, backwards)
        return found


class HistoryCase(TestCase):
    """Alice, of this server, joins a room of Bob's, of which two other servers know all.

    `here` are the events that this server was told, `room` has all.
    """

    version = "10"

    async def start(self, before: Callable[[PeerRoom], None] | None = None) -> None:
        """Begin: Bob makes the room, `before` goes on, Alice joins."""
        self.patch(FederationClient, "request", nobody_answers)
        self.server = await make_server(self)
        self.alice: User = await self.server.register("alice")
        services = self.server.homeserver.services
        self.db = self.server.homeserver.db
        self.receiver: Receiver = services[Receiver]
        self.room = PeerRoom.created(PEER, test_key(PEER), self.version, BOB)
        self.room_id = self.room.room_id
        self.member(CAROL, test_key(OTHER), OTHER)
        if before is not None:
            before(self.room)
        heads = list(self.room.heads)
        join = self.member(self.alice.user_id, test_key(SERVER_NAME), SERVER_NAME)
        state = [self.room.events[name] for name in self.room.state_before(heads).values()]
        chain = self.room.auth_chain([*(e.event_id for e in state), join.event_id])
        judged = await self.receiver.adopt(
            join, self.room.version, state, chain, servers=[PEER, OTHER]
        )
        self.assertTrue(judged.accepted, judged)
        self.join_event = join
        self.source = Source(self.room)
        self.fetcher = Fetcher(
            self.db, self.source, PduChecker(Keys(), reactor), self.receiver, reactor, SERVER_NAME
        )
        self.missing = MissingEvents(self.db, self.fetcher, self.receiver)
        states = services[StateStore]
        self.backfill = Backfill(self.db, states, self.fetcher, self.receiver, reactor, SERVER_NAME)
        self.addCleanup(self.backfill.stop)
        services[Timeline].filler = self.backfill
        services[EventContext].filler = self.backfill
        services[EventsByTime].others = self.backfill

    def member(self, user: str, key: SigningKey, server: str, membership: str = "join") -> Event:
        """A user's own membership, added to the room."""
        return self.room.grow(
            "m.room.member", {"membership": membership}, user, user, key=key, signer=server
        )

    def messages(self, number: int, name: str = "message") -> list[Event]:
        """Messages of Bob's, added to the room."""
        return [self.room.message(BOB, f"{name} {n}") for n in range(number)]

    async def row(self, event: Event | str) -> EventRow | None:
        """What is stored of an event."""
        event_id = event if isinstance(event, str) else event.event_id
        return await self.db.read(events.get, event_id)

    async def current(self) -> Mapping[Any, str]:
        """The room's current state here, by event ID."""

        def read(txn: Transaction) -> dict[Any, str]:
            room_nid = rooms.nid(txn, self.room_id)
            rows = txn.all(
                "SELECT c.type, c.state_key, e.event_id FROM current_state c JOIN events e"
                " ON e.event_nid = c.event_nid WHERE c.room_nid = ?",
                (room_nid,),
            )
            return {(raw[0], raw[1]): raw[2] for raw in rows}

        return await self.db.read(read)

    async def extremities(self) -> set[str]:
        """The forward extremities of the room here."""
        room = await self.db.read(rooms.get, self.room_id)
        assert room is not None
        return set(room.extremities)

    async def gaps(self) -> list[Gap]:
        """The gaps of the room."""

        def read(txn: Transaction) -> list[Gap]:
            room_nid = rooms.nid(txn, self.room_id)
            assert room_nid is not None
            return gaps.at_or_above(txn, room_nid, 0, 100)

        return await self.db.read(read)

    async def page(self, **query: Any) -> Any:
        """A page of /messages, as Alice sees it."""
        options = {"dir": "b", "limit": 10, **query}
        return await self.alice.ok("GET", f"/rooms/{self.room_id}/messages", query=options)
