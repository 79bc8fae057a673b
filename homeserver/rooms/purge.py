"""Purging the older part of a room's history.

What lies before a depth goes. What stays of it, without a place in the history, is what the room
is built on: state events, which later ones are authorised by and which states consist of; and,
unless the caller wants otherwise, what users of this server sent, of which there may be no other
copy. The room's heads stay in their places whatever their depth, and so does all behind the depth:
its states are whole, and where its predecessors were there are gaps, so that clients that page
back have the history fetched from other servers again (`homeserver.rooms.backfill`).

Steps, in this order, each of them small and able to be done again:

1. `events`: those in the timeline; 2. `placeless`: those beside it;
3. `links`: gaps before the rest; timelines of clients that were away begin there;
4. `states`: what the room's state was at positions before the rest. Users who left then keep
   theirs;
5. `nodes`: parts of states that nothing refers to (`homeserver.rooms.state_collection`);
6. `leftovers`: receipts, subscriptions of threads, pushes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import structlog
from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.room_tasks import RoomTasks
from homeserver.rooms.state_collection import StateCollection
from storage import events, gaps, history, memberships, partial_rooms, purging, room_tasks, rooms
from storage.database import Database
from storage.gaps import Gap
from storage.purging import Victim
from storage.room_tasks import RoomTask
from storage.rooms import RoomRow
from storage.timeline import Place
from storage.transaction import Transaction

BATCH = 100
"""Events that are taken out in one transaction."""
LINKED = 200
"""Events whose predecessors are looked for in one transaction."""
STATES = 500
RECEIPTS = 500

_log = structlog.get_logger(__name__)


class RoomIsPartial(Exception):
    """Not all members of the room are known yet: its states are about to change."""


class Point(NamedTuple):
    """Up to where a history is purged: one of the two.

    Parameters: `event_id`, this event and what is not less deep than it stays; `ts`, what is
    older than this time in milliseconds goes. Times are what senders say: as many of the first
    events go as there are older ones, so that a few wrong times move the point by as much.
    """

    event_id: str | None = None
    ts: int | None = None


class HistoryPurge:
    """Purges histories, as tasks.

    Parameters: `server_name` is this server's own.
    """

    KIND = "purge_history"

    def __init__(
        self,
        db: Database,
        tasks: RoomTasks,
        collection: StateCollection,
        clock: IReactorTime,
        server_name: str,
    ) -> None:
        self._db = db
        self._tasks = tasks
        self._collection = collection
        self._clock = clock
        self._server_name = server_name
        tasks.learn(self.KIND, self.work)

    async def purge_before(
        self, room_id: str, point: Point, *, delete_local_events: bool = False
    ) -> str:
        """Have a room's history before a point purged; the ID of the task.

        Parameters: `delete_local_events`, also what this server's users sent.

        Raises:
            MatrixError: 404 `M_NOT_FOUND` for an unknown room or event, or where nothing is to be
                purged; 400 `M_INVALID_PARAM` for an event that is not in the room's history; 400
                `M_UNKNOWN` while the room is being purged.
        """

        def begin(txn: Transaction) -> str:
            depth = _depth(txn, room_id, point)
            wanted = {"depth": depth, "local": delete_local_events}
            task_id = self._tasks.add(txn, self.KIND, room_id, wanted, {"phase": "events"})
            if task_id is None:
                raise errors.MatrixError(
                    400, "M_UNKNOWN", f"History purge already in progress for {room_id}"
                )
            return task_id

        return await self._db.write(begin)

    async def get(self, task_id: str) -> RoomTask | None:
        """The purge of this ID."""
        return await self._tasks.get(self.KIND, task_id)

    async def work(self, task: RoomTask) -> None:
        """Work on a task until it is over."""
        task_id = task.task_id
        _log.info("purging a history", task=task_id, room_id=task.room_id)
        while True:
            phase = await self._db.write(self._step, task_id)
            if phase is None:
                return
            if phase == "states":
                await self._forget_states(task.room_id)
                await self._db.write(self._pass, task_id, "states", "nodes")
            elif phase == "nodes":
                await self._collection.collect(task.room_id)
                await self._db.write(self._pass, task_id, "nodes", "leftovers")

    def _step(self, txn: Transaction, task_id: str) -> str | None:
        """Do the next step; the phase that the task is in then, None if it is over."""
        task = room_tasks.lock(txn, task_id)
        if task is None or task.is_over:
            return None
        room = rooms.lock(txn, [task.room_id]).get(task.room_id)
        if room is None:
            raise errors.not_found("The room is not known any more.")
        if partial_rooms.get(txn, room.room_nid) is not None:
            raise RoomIsPartial(f"{task.room_id} is being completed.")
        progress = dict(task.progress)
        phase = progress["phase"]
        if phase == "events":
            self._events(txn, room, task.wanted, progress)
        elif phase == "placeless":
            self._placeless(txn, room, task.wanted, progress)
        elif phase == "links":
            _links(txn, room, progress)
        elif phase == "leftovers" and not _leftovers(txn, room):
            room_tasks.finish(txn, task_id, progress, int(self._clock.seconds() * 1000))
            return None
        if progress != task.progress:
            room_tasks.advance(txn, task_id, progress)
        return str(progress["phase"])

    def _pass(self, txn: Transaction, task_id: str, phase: str, following: str) -> None:
        """A phase is over."""
        task = room_tasks.lock(txn, task_id)
        if task is not None and not task.is_over and task.progress["phase"] == phase:
            room_tasks.advance(txn, task_id, {**task.progress, "phase": following})

    def _events(
        self, txn: Transaction, room: RoomRow, wanted: JsonObject, progress: JsonObject
    ) -> None:
        found = purging.placed(
            txn, room.room_nid, _place(progress.get("after")), wanted["depth"], BATCH
        )
        victims = [each for each in found if each.event_id not in room.extremities]
        self._erase(txn, room, victims, wanted, progress)
        if len(found) == BATCH:
            progress["after"] = [found[-1].depth, found[-1].pos]
        else:
            progress.update(phase="placeless", after=None)

    def _placeless(
        self, txn: Transaction, room: RoomRow, wanted: JsonObject, progress: JsonObject
    ) -> None:
        keep = None if wanted["local"] else self._server_name
        behind = progress.get("after") or 0
        found = purging.placeless(txn, room.room_nid, behind, wanted["depth"], keep, BATCH)
        self._erase(txn, room, found, wanted, progress)
        if len(found) == BATCH:
            progress["after"] = found[-1].event_nid
        else:
            progress.update(phase="links", after=None)

    def _erase(
        self,
        txn: Transaction,
        room: RoomRow,
        victims: list[Victim],
        wanted: JsonObject,
        progress: JsonObject,
    ) -> None:
        doomed: list[Victim] = []
        displaced: list[Victim] = []
        for each in victims:
            is_kept = not wanted["local"] and domain_of(each.sender) == self._server_name
            (displaced if each.state_key is not None or is_kept else doomed).append(each)
        purging.erase(txn, room.room_nid, doomed, displaced)
        progress["deleted"] = progress.get("deleted", 0) + len(doomed)

    async def _forget_states(self, room_id: str) -> None:
        nid, doomed = await self._db.read(_needless_states, room_id)
        for start in range(0, len(doomed), STATES):
            await self._db.write(purging.delete_states, nid, doomed[start : start + STATES])


def _depth(txn: Transaction, room_id: str, point: Point) -> int:
    """The least depth of what stays."""
    room = rooms.get(txn, room_id)
    if room is None or room.state_root is None:
        raise errors.not_found("This room is not known here.")
    if point.event_id is not None:
        row = events.get(txn, point.event_id)
        if row is None:
            raise errors.not_found("There is no such event.")
        if row.room_nid != room.room_nid:
            raise errors.invalid_param("Event is for wrong room.")
        if row.pos is None:
            raise errors.invalid_param("The event has no place in the history of the room.")
        return row.depth
    older = purging.count_before(txn, room.room_nid, point.ts or 0)
    if not older:
        raise errors.not_found("there is no event to be purged")
    depth = purging.depth_of_nth(txn, room.room_nid, older)
    if depth is not None:
        return depth
    last = purging.depth_of_nth(txn, room.room_nid, older - 1)
    return (last or 0) + 1


def _place(told: Any) -> Place | None:
    return None if told is None else Place(*told)


def _links(txn: Transaction, room: RoomRow, progress: JsonObject) -> None:
    """Note where events are missing before the rest."""
    rest = purging.remaining(txn, room.room_nid, _place(progress.get("after")), LINKED)
    version = ROOM_VERSIONS[room.version]
    named = {row: Event.from_json(row.json, version, row.event_id).prev_event_ids for row in rest}
    known = history.known(txn, {name for names in named.values() for name in names})
    missing = [
        (row, name)
        for row, names in named.items()
        for name in dict.fromkeys(names)
        if name not in known or not known[name].placed
    ]
    gaps.add(txn, room.room_nid, [Gap(name, row.event_id, row.depth) for row, name in missing])
    breaks = {row.pos for row, _ in missing if row.pos > 0}
    if breaks:
        gaps.add_breaks(txn, room.room_nid, sorted(breaks))
    if len(rest) == LINKED:
        progress["after"] = [rest[-1].depth, rest[-1].pos]
    else:
        progress.update(phase="states", after=None)


def _needless_states(txn: Transaction, room_id: str) -> tuple[int, list[int]]:
    """The room's number, and from where on it had states that nobody can ask for any more."""
    nid = rooms.nid(txn, room_id)
    first = purging.first_positive(txn, nid) if nid is not None else None
    if nid is None or first is None:
        return 0, []
    old = purging.old_states(txn, nid, first + 1)
    ends = [memberships.last_stay(txn, nid, user)[1] for user in purging.former_members(txn, nid)]
    needed = {first, *(end for end in ends if end is not None)}
    kept = {max((pos for pos in old if pos <= end), default=None) for end in needed}
    return nid, [pos for pos in old if pos not in kept]


def _leftovers(txn: Transaction, room: RoomRow) -> bool:
    """Whether there may be more to clean up."""
    if purging.delete_receipts(txn, room.room_nid, RECEIPTS):
        return True
    purging.delete_subscriptions(txn, room.room_id)
    purging.delete_pushes(txn, room.room_nid)
    return False
