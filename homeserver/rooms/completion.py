"""Getting the members of rooms that were entered without them.

A job, enqueued in the transaction that enters the room, is run by any process, again and again
until a server in the room gives a state that can be believed. The process that joined begins at
once; the job is there for when it fails or dies.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from homeserver import collecting
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.rooms.append import Appender
from homeserver.rooms.complete import LacksEvents, complete_room
from homeserver.rooms.fetch import Fetcher
from storage import events, jobs, partial_rooms, room_servers, rooms
from storage.database import Database
from storage.partial_rooms import PartialRoom
from storage.transaction import Transaction

HEAD_START_MS = 60_000
"""After which the job tries what the process that joined began at once."""

FIRST_PAUSE_MS = 30_000
LONGEST_PAUSE_MS = 3_600_000

GIVE_UP_MS = 7 * 24 * 3_600_000
"""After which a room is taken as it is: nobody in it tells of the others."""

SHORTLY_S = 0.5
"""How long a join waits, as small rooms are complete at once."""

_log = structlog.get_logger(__name__)


class Incomplete(Exception):
    """No server gave a state that could be believed."""


class _Partial(NamedTuple):
    room: PartialRoom
    join: Event
    servers: list[str]


class Completion:
    """Completes rooms that were entered with partial state."""

    KIND = "complete_room"

    def __init__(
        self, db: Database, appender: Appender, fetcher: Fetcher, clock: IReactorTime
    ) -> None:
        self._db = db
        self._appender = appender
        self._fetcher = fetcher
        self._clock = clock
        self._running: set[Deferred[None]] = set()

    def enqueue(self, txn: Transaction, room_id: str) -> None:
        """Have the room completed in any case; in the transaction that enters it."""
        now_ms = self._now_ms()
        payload = {"room_id": room_id, "tries": 0}
        jobs.enqueue(txn, self.KIND, payload, now_ms, run_at=now_ms + HEAD_START_MS)

    async def begin(self, room_id: str, server: str) -> None:
        """Begin with a room that was entered by `server`, and wait for it, but not long."""
        work = Deferred.fromCoroutine(self._try(room_id, server))
        self._running.add(work)
        work.addBoth(lambda result: self._running.discard(work))
        for _ in range(10):
            if work not in self._running:
                return
            await deferLater(self._clock, SHORTLY_S / 10)

    async def run(self, job: jobs.Job) -> None:
        """The job. Running it again does no harm."""
        room_id, tries = job.payload["room_id"], int(job.payload["tries"])
        try:
            await self.complete(room_id)
        except Incomplete as problem:
            _log.warning("A room is still incomplete", room_id=room_id, reason=str(problem))
            await self._db.write(self._again, room_id, tries)

    async def complete(self, room_id: str, first: str | None = None) -> None:
        """Get the whole state of a room, if it is not known.

        Parameters: `first`, the server to ask first.

        Raises Incomplete.
        """
        found = await self._db.read(_read, room_id)
        if found is not None:
            with collecting.large_states():
                await self._complete(room_id, found, first)

    async def _complete(self, room_id: str, found: _Partial, first: str | None) -> None:
        servers = list(found.servers)
        # The largest servers are asked anyway: others may have what those do not tell.
        secrets.SystemRandom().shuffle(servers)
        named = [first] if first is not None else servers[:2]
        errand = await self._fetcher.errand(room_id, found.join.version, named)
        whole = await self._fetcher.state_before(errand, found.join)
        if whole is None:
            raise Incomplete("; ".join(errand.notes) or "no server is known")
        try:
            done = await self._db.write(
                complete_room,
                self._appender.context,
                room_id,
                found.room.join_event_id,
                whole,
            )
        except LacksEvents:
            raise Incomplete("events of the state are missing") from None
        if done:
            _log.info("A room is complete", room_id=room_id, state=len(whole.state))

    async def stop(self) -> None:
        """Give up what is under way; the jobs go on with it."""
        for work in list(self._running):
            work.cancel()

    async def _try(self, room_id: str, server: str) -> None:
        try:
            await self.complete(room_id, server)
        except CancelledError:
            return
        except Incomplete as problem:
            _log.warning("A room is incomplete", room_id=room_id, reason=str(problem))
        except Exception:
            _log.exception("A room was not completed", room_id=room_id)

    def _again(self, txn: Transaction, room_id: str, tries: int) -> None:
        """Try again later, or give up."""
        room_nid, now_ms = rooms.nid(txn, room_id), self._now_ms()
        partial = partial_rooms.get(txn, room_nid) if room_nid is not None else None
        if room_nid is None or partial is None:
            return
        if now_ms - partial.started_ts > GIVE_UP_MS:
            partial_rooms.remove(txn, room_nid)
            _log.error("A room stays without the members that are not known", room_id=room_id)
            return
        pause = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** min(tries, 20))
        payload = {"room_id": room_id, "tries": tries + 1}
        jobs.enqueue(txn, self.KIND, payload, now_ms, run_at=now_ms + pause)

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)


def _read(txn: Transaction, room_id: str) -> _Partial | None:
    room = rooms.get(txn, room_id)
    partial = partial_rooms.get(txn, room.room_nid) if room is not None else None
    row = events.get(txn, partial.join_event_id) if partial is not None else None
    if room is None or partial is None or row is None:
        return None
    join = Event.from_json(row.json, ROOM_VERSIONS[room.version], row.event_id)
    return _Partial(partial, join, room_servers.of_room(txn, room.room_nid))
