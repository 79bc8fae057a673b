"""History that other servers have and this one has not.

Server-Server API, "Backfilling and retrieving missing events". Somebody reads as far as a gap
(`storage.gaps`); the servers that were in the room then are asked for what lies before it. What
they give gets its place in the history, is announced to nobody, and the gap is closed or lies
further back. One request at a time goes out for a room; readers wait for it, but not for long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from federation.client.events import MAX_NAMES
from federation.client.keyring import Pauses
from homeserver.core import gaps, state_tree
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.power_levels import PowerLevels
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.fetch import Errand, Fetcher, Store
from homeserver.rooms.judged import NOT_ADDED, KnownState
from storage import events, memberships, room_servers, rooms
from storage import gaps as stored_gaps
from storage.database import Database
from storage.events import EventRow
from storage.gaps import Gap
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

PAGE = 100
"""Events that are asked for at once."""
WAIT_S = 15.0
"""How long a reader waits."""
MAX_ANCHORS = 20
"""Events of one page for which the state before them is asked for."""
MAX_COUNTED = 2000
"""Members of a state that are looked at to find out which servers were in the room."""

_ERRAND_S = 120.0
_MAX_FAILURES = 3

_log = structlog.get_logger(__name__)


class _Place(NamedTuple):
    """A room at a gap."""

    version: RoomVersion
    servers: list[str]


class Backfill:
    """Fills gaps in rooms' histories.

    Parameters: `server_name` is this server's own.
    """

    def __init__(
        self,
        db: Database,
        states: StateStore,
        fetcher: Fetcher,
        receiver: Store,
        clock: IReactorTime,
        server_name: str,
    ) -> None:
        self._db = db
        self._states = states
        self._fetcher = fetcher
        self._receiver = receiver
        self._clock = clock
        self._server_name = server_name
        self._pauses = Pauses(clock, "backfill_servers")
        self.caches = self._pauses.caches
        self._flights: dict[str, Deferred[bool]] = {}
        self._waiters: dict[str, list[Deferred[bool]]] = {}

    def stop(self) -> None:
        """Give up what is under way."""
        for flight in list(self._flights.values()):
            flight.cancel()

    async def fill(self, room_id: str, holes: Sequence[Gap], *, wait_s: float = WAIT_S) -> bool:
        """Get what lies before these gaps; whether there is more to read now.

        Never raises for what others do; False also when it takes longer than `wait_s` (seconds),
        in which case the work goes on behind. A gap that nobody could fill is left alone for
        some time, ever longer.
        """
        waiter: Deferred[bool] = Deferred()
        if room_id in self._flights:
            self._waiters[room_id].append(waiter)
        else:
            open_holes = [h for h in holes if self._pauses.is_over((room_id, h.event_id))]
            if not open_holes:
                return False
            self._waiters[room_id] = [waiter]
            self._start(room_id, open_holes)
        waiter.addTimeout(wait_s, self._clock)
        try:
            return await waiter
        except DeferredTimeout:
            return False

    async def nearest(
        self, room_id: str, ts: int, *, backwards: bool, local_ts: int | None
    ) -> bool:
        """Get the event nearest to a time that other servers know, if it is nearer than ours.

        Parameters: `ts` and `local_ts` (the nearest that is here, None if none) in milliseconds.
        """
        name = (room_id, ts, backwards)
        if not self._pauses.is_over(name):
            return False
        place = await self._db.read(self._place, room_id, ())
        if place is None:
            return False
        errand = await self._fetcher.errand(room_id, place.version, place.servers, seconds=WAIT_S)
        for server in list(errand.servers):
            said = await self._fetcher.ask(
                errand,
                server,
                lambda s: self._fetcher.source.timestamp_to_event(
                    s, room_id, ts, backwards=backwards
                ),
            )
            if said is None or not _nearer(said.origin_server_ts, ts, backwards, local_ts):
                continue
            errand.servers = [server, *(s for s in errand.servers if s != server)]
            event = await self._fetcher.event(errand, said.event_id)
            if event is None or not _nearer(event.origin_server_ts, ts, backwards, local_ts):
                continue
            if not await self._db.read(_is_past, event):
                errand.note(f"{event.event_id} is no history")
                continue
            added = await self._add(errand, {event.event_id: event})
            if added or await self._db.read(_has_place, event.event_id):
                _log.info("event got by its time", room_id=room_id, server=server)
                return True
        self._pauses.failed(name)
        return False

    def _start(self, room_id: str, holes: Sequence[Gap]) -> None:
        flight = self._flights[room_id] = Deferred.fromCoroutine(self._fill(room_id, holes))
        flight.addBoth(self._landed, room_id)

    def _landed(self, result: Any, room_id: str) -> None:
        self._flights.pop(room_id, None)
        if not isinstance(result, bool):
            if not result.check(CancelledError):
                _log.error("filling a gap failed", room_id=room_id, exc_info=result.value)
            result = False
        for waiter in self._waiters.pop(room_id, []):
            if not waiter.called:
                waiter.callback(result)

    async def _fill(self, room_id: str, holes: Sequence[Gap]) -> bool:
        place = await self._db.read(self._place, room_id, [hole.successor for hole in holes])
        if place is None:
            return False
        errand = await self._fetcher.errand(
            room_id, place.version, place.servers, seconds=_ERRAND_S
        )
        names = list(dict.fromkeys(hole.event_id for hole in holes))[:MAX_NAMES]
        for server in list(errand.servers):
            errand.servers = [server, *(s for s in errand.servers if s != server)]
            added = await self._page(errand, server, names)
            if added:
                _log.info(
                    "history got",
                    room_id=room_id,
                    server=server,
                    events=added,
                    outliers=errand.outliers,
                    problems=errand.notes,
                )
                return True
            if await self._db.read(_is_any_closed, room_id, names):
                # By another process of this server, that asked at the same time.
                return True
        for name in names:
            self._pauses.failed((room_id, name))
        _log.info("history not got", room_id=room_id, gaps=len(names), problems=errand.notes)
        return False

    async def _page(self, errand: Errand, server: str, names: Sequence[str]) -> int:
        """How many events a server gave that are part of the history now."""
        answer = await self._fetcher.ask(
            errand,
            server,
            lambda s: self._fetcher.source.backfill(s, errand.room_id, names, PAGE),
        )
        if not answer:
            return 0
        found = gaps.ancestors(names, (await self._fetcher.check(errand, answer)).values())
        if not found:
            errand.note(f"{server}: none of {len(answer)} events was asked for")
        return await self._add(errand, found) if found else 0

    async def _add(self, errand: Errand, found: Mapping[str, Event]) -> int:
        """Give events their places in the history; how many have one now that had none."""
        fresh, placed = await self._fresh(errand, found)
        states = await self._anchors(errand, fresh, placed)
        if not fresh:
            return 0
        await self._fetcher.store_auth(errand, fresh)
        judged = await self._receiver.add_history(errand.room_id, list(fresh.values()), states)
        return sum(1 for item in judged.values() if item.status != NOT_ADDED)

    async def _fresh(
        self, errand: Errand, found: Mapping[str, Event]
    ) -> tuple[dict[str, Event], set[str]]:
        """Those of the events that have no place yet, and which predecessors have one.

        An event that comes after one of another room is none of this room's.
        """
        prevs = {name for event in found.values() for name in event.prev_event_ids}
        known = await self._fetcher.known(prevs | found.keys())
        room_nid = await self._db.read(rooms.nid, errand.room_id)
        foreign = {name for name, item in known.items() if item.room_nid != room_nid}
        fresh = {}
        for event_id, event in found.items():
            if foreign.intersection((event_id, *event.prev_event_ids)):
                errand.note(f"{event_id} comes after an event of another room")
            elif event_id not in known or not known[event_id].placed:
                fresh[event_id] = event
        placed = {name for name, item in known.items() if item.placed and name not in foreign}
        return fresh, placed

    async def _anchors(
        self, errand: Errand, fresh: dict[str, Event], placed: set[str]
    ) -> dict[str, KnownState]:
        """States before those events whose predecessors are not here.

        An event before which nobody tells the state is taken out of `fresh`.
        """
        states: dict[str, KnownState] = {}
        failures = 0
        while True:
            missing = gaps.edge(fresh, placed)
            waiting = [name for name in missing if name not in states]
            if not waiting:
                return states
            event = fresh[min(waiting, key=lambda name: (fresh[name].depth, name))]
            state = None
            if failures < _MAX_FAILURES and len(states) < MAX_ANCHORS:
                state = await self._fetcher.state_before(errand, event)
            if state is not None:
                states[event.event_id] = state
            else:
                failures += 1
                del fresh[event.event_id]

    def _place(self, txn: Transaction, room_id: str, successors: Sequence[str]) -> _Place | None:
        """The room, and its servers, the likeliest to know what came before some events first."""
        room = rooms.get(txn, room_id)
        if room is None or room.version not in ROOM_VERSIONS:
            return None
        if not memberships.local_joined(txn, room.room_nid):
            # Nobody gives history to a server that is not in the room.
            return None
        present = room_servers.of_room(txn, room.room_nid)
        rows = list(events.get_many(txn, successors).values()) if successors else []
        then = self._servers_then(txn, room, rows) if rows else []
        servers = [name for name in then if name in present]
        ordered = dict.fromkeys([*servers, *present, *then])
        ordered.pop(self._server_name, None)
        return _Place(ROOM_VERSIONS[room.version], list(ordered))

    def _servers_then(self, txn: Transaction, room: RoomRow, rows: Sequence[EventRow]) -> list[str]:
        """Servers in the room at some events: those of powerful users, of senders, of many."""
        version = ROOM_VERSIONS[room.version]
        row = max(rows, key=lambda item: item.depth)
        if row.state_before is None:
            return [domain_of(item.sender) for item in rows]
        load = self._states.loader(txn, room.room_nid)
        wanted = self._states.lookup(txn, [gaps.CREATE, gaps.POWER_LEVELS])
        entries = state_tree.get(row.state_before, wanted.values(), load)
        found = {
            item.key: item
            for item in (
                Event.from_json(r.json, version, r.event_id)
                for r in events.get_by_nids(txn, entries.values()).values()
            )
        }
        powerful: list[str] = []
        create = found.get(gaps.CREATE)
        if create is not None:
            levels = PowerLevels.of(found.get(gaps.POWER_LEVELS), create)
            users = {**dict.fromkeys(levels.creators, 100), **levels.listed_users()}
            ranked = sorted(users.items(), key=lambda item: (-item[1], item[0]))
            powerful = [user for user, level in ranked if level >= 50]
        members = self._members_then(txn, room, row.state_before)
        names = [domain_of(user) for user in (*powerful, *(item.sender for item in rows))]
        names = [name for name in names if not members or name in members]
        return list(dict.fromkeys([*names, *(name for name, _ in members.most_common())]))

    def _members_then(self, txn: Transaction, room: RoomRow, root: bytes) -> Counter[str]:
        """How many users each server had in a state; nothing if it is too large to count."""
        entries = dict(state_tree.items(root, self._states.loader(txn, room.room_nid)))
        if len(entries) > MAX_COUNTED:
            return Counter()
        keys = self._states.keys(txn, entries.keys())
        nids = [entries[nid] for nid, key in keys.items() if key[0] == "m.room.member"]
        version = ROOM_VERSIONS[room.version]
        found: Counter[str] = Counter()
        for row in events.get_by_nids(txn, nids).values():
            if Event.from_json(row.json, version, row.event_id).membership == "join":
                found[domain_of(row.state_key or "")] += 1
        return found


def _is_any_closed(txn: Transaction, room_id: str, names: Sequence[str]) -> bool:
    """Whether some of these gaps of a room are none any more."""
    room_nid = rooms.nid(txn, room_id)
    return room_nid is not None and len(stored_gaps.still_open(txn, room_nid, names)) < len(names)


def _has_place(txn: Transaction, event_id: str) -> bool:
    """Whether an event is part of the history: another process may have added it meanwhile."""
    row = events.get(txn, event_id)
    return row is not None and row.pos is not None


def _is_past(txn: Transaction, event: Event) -> bool:
    """Whether an event lies before the head of its room: others are still to come, and would not
    count for the head if they were part of the history."""
    room = rooms.get(txn, event.room_id)
    if room is None or event.depth >= room.depth:
        return False
    rows = events.get_many(txn, event.prev_event_ids)
    return not any(row.pos is not None and row.pos > 0 for row in rows.values())


def _nearer(found_ts: int, ts: int, backwards: bool, local_ts: int | None) -> bool:
    """Whether an event is on the right side of a time, and nearer to it than the local one."""
    if (found_ts > ts) if backwards else (found_ts < ts):
        return False
    return local_ts is None or abs(found_ts - ts) < abs(local_ts - ts)
