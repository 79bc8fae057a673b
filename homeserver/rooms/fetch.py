"""Getting single events, auth chains and states from other servers, and storing them as outliers.

An `Errand` is one occasion for asking: about which room, whom, and how often at most. What
another server does wrong is noted in the errand, and the next server is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import BadAnswer, RemoteError
from federation.client.events import StateIds, StatePdus, TimedEvent
from federation.client.pdus import CheckedPdu
from homeserver.core import gaps
from homeserver.core.auth_rules import auth_types
from homeserver.core.canonical import NotJSON
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import StateKey
from homeserver.rooms.judged import Judged, KnownState
from homeserver.rooms.noted import Noted
from homeserver.semaphore import Semaphore
from storage import destinations, events, history, room_servers, rooms, state
from storage.database import Database
from storage.history import Known
from storage.transaction import Transaction

T = TypeVar("T")

MAX_SERVERS = 5
"""Servers that are asked for one thing."""
MAX_REQUESTS = 800
"""Requests of one errand."""
MAX_SINGLE = 300
"""Events that are asked for one by one; for more there is `/state`."""
ERRAND_S = 300.0
_AT_ONCE = 10
_CHUNK = 500
_PART = 1000
"""Events that are stored in one transaction, which has the room locked."""
_MAX_NOTES = 10
_MAX_CANDIDATES = 20


class EventSource(Protocol):
    """What is needed of `federation.client.events.EventsClient`. Raises RemoteError."""

    async def get_event(self, destination: str, event_id: str) -> Any: ...

    async def get_state_ids(self, destination: str, room_id: str, event_id: str) -> StateIds: ...

    async def get_state(self, destination: str, room_id: str, event_id: str) -> StatePdus: ...

    async def get_event_auth(
        self, destination: str, room_id: str, event_id: str
    ) -> Sequence[Any]: ...

    async def backfill(
        self, destination: str, room_id: str, event_ids: Sequence[str], limit: int
    ) -> Sequence[Any]: ...

    async def get_missing_events(
        self,
        destination: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int,
    ) -> Sequence[Any]: ...

    async def timestamp_to_event(
        self, destination: str, room_id: str, ts: int, *, backwards: bool
    ) -> TimedEvent: ...


class Checker(Protocol):
    """What is needed of `federation.client.pdus.PduChecker`."""

    async def check(
        self,
        pdus: Sequence[Any],
        version: RoomVersion,
        *,
        room_id: str | None = ...,
        is_new: bool = ...,
    ) -> list[CheckedPdu]: ...


class Store(Protocol):
    """What is needed of `homeserver.rooms.receive.Receiver`."""

    async def add(
        self,
        room_id: str,
        events: Sequence[Event],
        *,
        states: Mapping[str, KnownState] = ...,
    ) -> dict[str, Judged]: ...

    async def add_outliers(
        self, room_id: str, events: Sequence[Event], noted: Noted | None = ...
    ) -> dict[str, Judged]: ...

    async def add_history(
        self, room_id: str, events: Sequence[Event], states: Mapping[str, KnownState]
    ) -> dict[str, Judged]: ...


@dataclass(slots=True)
class Errand:
    """One occasion for asking others about a room.

    `servers` are those to ask, the likeliest first; `deadline` is the clock's time (seconds)
    after which nothing is asked. The rest changes with the asking: `notes` say what went wrong,
    for the log.
    """

    room_id: str
    version: RoomVersion
    servers: list[str]
    deadline: float
    requests_left: int
    outliers: int = 0
    refused: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Remember what went wrong; the first few times."""
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(text[:300])


class Fetcher:
    """Asks other servers, one after the other, and stores what stands the test.

    Parameters: `server_name` is this server's own, which is never asked.
    """

    def __init__(
        self,
        db: Database,
        source: EventSource,
        checker: Checker,
        receiver: Store,
        clock: IReactorTime,
        server_name: str,
    ) -> None:
        self._clock = clock
        self._db = db
        self.source = source
        self._checker = checker
        self._receiver = receiver
        self._server_name = server_name

    async def errand(
        self,
        room_id: str,
        version: RoomVersion,
        first: Iterable[str] = (),
        *,
        seconds: float = ERRAND_S,
    ) -> Errand:
        """An errand to these servers, and to the largest ones in the room.

        Those that could not be reached lately come last.

        Parameters: `seconds`, after which nothing more is asked.
        """

        def read(txn: Transaction) -> list[str]:
            room_nid = rooms.nid(txn, room_id)
            here = room_servers.of_room(txn, room_nid) if room_nid is not None else []
            names = [n for n in dict.fromkeys([*first, *here]) if n != self._server_name]
            names = names[:_MAX_CANDIDATES]
            rows = {name: destinations.get(txn, name) for name in names}
            return sorted(
                names, key=lambda n: (row := rows[n]) is not None and row.failing_since is not None
            )

        names = await self._db.read(read)
        deadline = self._clock.seconds() + seconds
        return Errand(room_id, version, names[:MAX_SERVERS], deadline, MAX_REQUESTS)

    async def ask(
        self, errand: Errand, server: str, request: Callable[[str], Awaitable[T]]
    ) -> T | None:
        """A server's answer; None if there is no usable one, or too much was asked already."""
        if self._is_over(errand):
            return None
        errand.requests_left -= 1
        try:
            return await request(server)
        except RemoteError as error:
            errand.note(str(error))
            return None

    def _is_over(self, errand: Errand) -> bool:
        if errand.requests_left > 0 and self._clock.seconds() < errand.deadline:
            return False
        if "gave up asking" not in errand.notes:
            errand.note("gave up asking")
        return True

    async def check(self, errand: Errand, pdus: Sequence[Any]) -> dict[str, Event]:
        """Those of the PDUs that are sound events of the room, by ID."""
        found = {}
        for item in await self._checker.check(
            pdus, errand.version, room_id=errand.room_id, is_new=False
        ):
            if item.event is not None:
                found[item.event.event_id] = item.event
            else:
                errand.refused += 1
                errand.note(f"refused {item.event_id or 'an event without ID'}: {item.error}")
        return found

    async def event(self, errand: Errand, event_id: str) -> Event | None:
        """An event, from the first server that has it."""
        for server in errand.servers:
            pdu = await self.ask(errand, server, lambda s: self.source.get_event(s, event_id))
            if pdu is None:
                continue
            event = (await self.check(errand, [pdu])).get(event_id)
            if event is not None:
                return event
            errand.note(f"{server}: no sound answer about {event_id}")
        return None

    async def events(self, errand: Errand, event_ids: Collection[str]) -> dict[str, Event]:
        """Those of the events that somebody has, asked for one by one, several at once."""
        places = Semaphore(_AT_ONCE)

        def start(event_id: str) -> Deferred[Event | None]:
            return places.run(lambda: Deferred.fromCoroutine(self.event(errand, event_id)))

        asked = [start(event_id) for event_id in sorted(event_ids)[:MAX_SINGLE]]
        found = await gatherResults(asked, consumeErrors=True)
        return {event.event_id: event for event in found if event is not None}

    async def known(self, event_ids: Collection[str]) -> dict[str, Known]:
        """What is stored of events."""
        return await self._db.read(history.known, event_ids) if event_ids else {}

    async def store_auth(self, errand: Errand, wanted: Mapping[str, Event]) -> None:
        """Get and store the auth chains of `wanted`, as far as they are missing."""
        stored = set(await self.known(gaps.auth_ids(wanted.values())))
        missing = gaps.missing_auth(wanted, stored)
        if not missing:
            return
        got: dict[str, Event] = {}
        tried: set[str] = set()
        for event in wanted.values():
            # A chain that was already given tells most of the others as well.
            left = {name for name in event.auth_event_ids if name in missing and name not in got}
            if left - tried:
                got |= await self._chain_of(errand, event, got)
                tried |= left
        await self._store_outliers(errand, missing, {**wanted, **got})

    async def _chain_of(
        self, errand: Errand, event: Event, got: Mapping[str, Event]
    ) -> dict[str, Event]:
        """The auth chain of an event, from the first servers that give one."""
        chain: dict[str, Event] = {}
        for server in errand.servers:
            answer = await self.ask(
                errand,
                server,
                lambda s: self.source.get_event_auth(s, errand.room_id, event.event_id),
            )
            if answer:
                offered = {**await self.check(errand, answer), **got, **chain}
                chain = gaps.auth_chain(event.auth_event_ids, offered)
                if all(name in chain for name in event.auth_event_ids):
                    break
        return chain

    async def _store_outliers(
        self,
        errand: Errand,
        wanted: Collection[str],
        offered: Mapping[str, Event],
        known: tuple[Set[str], Set[str]] = (frozenset(), frozenset()),
        noted: Noted | None = None,
    ) -> None:
        """Store what is `offered` of the wanted events and their auth chains.

        What the chains still lack is asked for event by event.

        Parameters: `known`, events that were looked for before, and which of them are stored;
        `noted` takes note of what is stored now.
        """
        chain = await self._aside(offered, lambda: gaps.auth_chain(wanted, offered))
        named = await self._aside(chain, lambda: gaps.auth_ids(chain.values()))
        names = {*wanted, *chain, *named}
        stored = {*known[1], *await self.known(names - known[0])}
        asked: set[str] = set()
        while True:
            missing = {*wanted, *named}.difference(chain, stored, asked)
            if not missing or self._is_over(errand):
                break
            asked |= missing
            fetched = await self.events(errand, missing)
            chain |= fetched
            fetched_named = gaps.auth_ids(fetched.values())
            named |= fetched_named
            stored |= set(await self.known(fetched_named))
        new = await self._aside(chain, lambda: _new_ones(chain, stored))
        errand.outliers += len(new)
        for start in range(0, len(new), _PART):
            part = new[start : start + _PART]
            await self._receiver.add_outliers(errand.room_id, part, noted)

    async def _aside(self, events: Sized, work: Callable[[], T]) -> T:
        """What takes long for very many events is done in a thread."""
        return work() if len(events) <= _CHUNK else await self._db.read(lambda _: work())

    async def state_before(self, errand: Errand, event: Event) -> KnownState | None:
        """The state before an event, from the first server whose answer can be believed.

        Its events and their auth chains are stored then.
        """
        for server in errand.servers:
            answer = await self.ask(
                errand,
                server,
                lambda s: self.source.get_state_ids(s, errand.room_id, event.event_id),
            )
            if answer is None:
                continue
            noted = Noted()
            offered = await self._store_state(errand, server, event, answer, noted)
            found = await self._db.read(_believable, errand, event, answer, offered, noted)
            if isinstance(found, KnownState):
                return replace(found, events=offered, noted=noted)
            errand.note(f"{server}: state before {event.event_id} refused: {found}")
        return None

    async def _store_state(
        self, errand: Errand, server: str, event: Event, ids: StateIds, noted: Noted
    ) -> dict[str, Event]:
        """Get and store what is missing of a state; the events that were got for that.

        Parameters: `noted` takes note of what is stored.
        """
        wanted = {*ids.pdu_ids, *ids.auth_chain_ids}
        stored = set(await self.known(wanted))
        missing = wanted - stored
        offered: dict[str, Event] = {}
        if _ask_for_all(len(missing), len(wanted)):
            whole = await self.ask(
                errand, server, lambda s: self.source.get_state(s, errand.room_id, event.event_id)
            )
            if whole is not None:
                try:
                    offered = await self.check(errand, [*whole.pdus, *whole.auth_chain])
                except NotJSON as problem:
                    errand.note(str(BadAnswer(server, str(problem))))
                del whole
        if missing:
            # Only a few are asked for singly: who lacks thousands of them gave a poor answer.
            lacking = missing - set(offered)
            singly = set(sorted(lacking)[:MAX_SINGLE])
            asked = missing - lacking | singly
            await self._store_outliers(errand, asked, offered, (wanted, stored), noted)
        return offered


def _new_ones(chain: Mapping[str, Event], stored: Set[str]) -> list[Event]:
    """Those to be stored, auth events before what they authorise."""
    complete = gaps.complete_by_auth(chain, stored)
    return [event for event in complete if event.event_id not in stored]


def _ask_for_all(missing: int, total: int) -> bool:
    """Whether one large answer is better than many small ones."""
    return missing > _AT_ONCE and (missing * 10 >= total or missing > MAX_SINGLE)


def _believable(
    txn: Transaction,
    errand: Errand,
    event: Event,
    ids: StateIds,
    offered: Mapping[str, Event],
    noted: Noted,
) -> KnownState | str:
    """The state that somebody claims, of events that are stored; or what is wrong with it.

    Parameters: `offered`, events at hand, of which `noted` says which were stored just now.
    """
    room = rooms.get(txn, errand.room_id)
    if room is None:
        return "the room is not known"
    names = {*ids.pdu_ids, *ids.auth_chain_ids, *event.auth_event_ids}
    sure = noted.numbers(txn, room.room_nid).keys() & offered.keys() & names
    stored = history.known(txn, names - sure)
    foreign = [name for name, item in stored.items() if item.room_nid != room.room_nid]
    if foreign:
        return f"{foreign[0]} belongs to another room"
    named: dict[str, Known | Event] = {**stored, **{name: offered[name] for name in sure}}
    rejected = {name for name, item in stored.items() if item.status == events.REJECTED}
    rejected |= noted.rejected & sure
    claimed = [named[n] for n in ids.pdu_ids if n in named and n not in rejected]
    by_key = {(item.type, item.state_key): item.event_id for item in claimed}
    keys = auth_types(event.type, event.sender, event.state_key, event.content, errand.version) | {
        gaps.CREATE,
        gaps.POWER_LEVELS,
    }
    rows = events.get_many(txn, [by_key[key] for key in keys if key in by_key])
    relevant = {
        item.key: item
        for item in (Event.from_json(r.json, errand.version, r.event_id) for r in rows.values())
        if item.is_state
    }
    create = state.current(txn, room.room_nid, [gaps.CREATE]).get(gaps.CREATE)
    why = gaps.why_unusable(
        event,
        claimed,
        relevant,
        create_id=create.event_id if create is not None else None,
        had_power_levels=any(
            (item.type, item.state_key) == gaps.POWER_LEVELS
            for name in (*ids.auth_chain_ids, *event.auth_event_ids)
            if (item := named.get(name)) is not None
        ),
    )
    if why is not None:
        return why
    # It is one: they all have a state key.
    return KnownState(cast("dict[StateKey, str]", by_key))
