"""Deleting rooms: everybody of this server leaves, and then every trace of the room goes.

Steps, each able to be done again:

1. `shutdown`: see `homeserver.rooms.shutdown`.
2. `sent`: other servers hear of the leaves, unless they are away.
3. `close`: nobody can look into the room any more; clients that were away are told by
   `storage.gone_rooms` that their users left.
4. `rows`: table by table, some rows at a time; 5. `events`.
6. `rest`: what came meanwhile, and the room.

While a room is being removed nobody of this server can enter it; afterwards it can be joined
again, unless it is blocked.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from homeserver.core import errors
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.room_tasks import RoomTasks
from homeserver.rooms.shutdown import NOTHING_DONE, RoomShutdown
from storage import (
    blocked_rooms,
    destinations,
    gone_rooms,
    memberships,
    room_removal,
    room_servers,
    room_tasks,
    rooms,
)
from storage.database import Database
from storage.room_tasks import RoomTask
from storage.transaction import Transaction

ROWS = 500
EVENTS = 100
"""Rows that are deleted in one transaction."""
SENT_S = 20.0
"""Seconds that other servers have to hear of the leaves."""
_LOOK_S = 0.25
_SHARDS = 16

_TABLES = [(table, "room_nid") for table in room_removal.BY_NUMBER] + [
    (table, "room_id") for table in room_removal.BY_ID
]
_log = structlog.get_logger(__name__)


class Deletion(NamedTuple):
    """What an administrator wants; the fields are those of the endpoint.

    Parameters: `purge`, whether more is done than to have users leave; `force_purge`, also if
    some of them cannot.
    """

    requested_by: str
    new_room_user_id: str | None = None
    room_name: str | None = None
    message: str | None = None
    block: bool = False
    purge: bool = True
    force_purge: bool = False


class RoomDeletion:
    """Deletes rooms, as tasks.

    Parameters: `server_name` is this server's own.
    """

    KIND = "delete_room"

    def __init__(
        self,
        db: Database,
        tasks: RoomTasks,
        shutdown: RoomShutdown,
        clock: IReactorTime,
        server_name: str,
    ) -> None:
        self._db = db
        self._tasks = tasks
        self._shutdown = shutdown
        self._clock = clock
        self._server_name = server_name
        tasks.learn(self.KIND, self.work)

    async def begin(self, room_id: str, wanted: Deletion) -> str:
        """Have a room deleted; the ID of the task.

        Raises:
            MatrixError: 400 `M_UNKNOWN` while it is being deleted, and for a
                `new_room_user_id` of another server; 404 `M_NOT_FOUND` for an unknown room that
                is not to be blocked.
        """
        creator = wanted.new_room_user_id
        if creator is not None and UserID.parse(creator).domain != self._server_name:
            raise errors.unknown(f"User must be our own: {creator}")

        def write(txn: Transaction) -> str:
            if wanted.block:
                now = int(self._clock.seconds() * 1000)
                blocked_rooms.block(txn, room_id, wanted.requested_by, now)
            elif rooms.nid(txn, room_id) is None:
                raise errors.not_found("Unknown room id")
            task_id = self._tasks.add(
                txn,
                self.KIND,
                room_id,
                wanted._asdict(),
                {"phase": "shutdown", "shutdown": NOTHING_DONE},
                is_closing=wanted.purge,
            )
            if task_id is None:
                raise errors.unknown(f"Purge already in progress for {room_id}")
            return task_id

        return await self._db.write(write)

    async def get(self, task_id: str) -> RoomTask | None:
        """The deletion of this ID."""
        return await self._tasks.get(self.KIND, task_id)

    async def of_room(self, room_id: str) -> list[RoomTask]:
        """Deletions of a room, the oldest first."""
        return await self._tasks.of_room(self.KIND, room_id)

    async def over(self, task_id: str) -> RoomTask | None:
        """Wait until a deletion is over."""
        return await self._tasks.over(task_id)

    async def work(self, task: RoomTask) -> None:
        """Work on a task until it is over."""
        task_id = task.task_id
        _log.info("deleting a room", task=task_id, room_id=task.room_id)
        while True:
            phase = await self._db.write(self._step, task_id)
            if phase is None:
                return
            if phase == "shutdown":
                now = await self._db.read(room_tasks.get, task_id)
                if now is not None and not now.is_over:
                    await self._shutdown.run(now)
                await self._db.write(self._pass, task_id, "shutdown", "sent")
            elif phase == "sent":
                await self._wait_for_others(task.room_id)
                await self._db.write(self._pass, task_id, "sent", "close")

    def _step(self, txn: Transaction, task_id: str) -> str | None:
        """Do the next step; the phase that the task is in then, None if it is over."""
        task = room_tasks.lock(txn, task_id)
        if task is None or task.is_over:
            return None
        progress = dict(task.progress)
        phase = progress["phase"]
        nid = rooms.nid(txn, task.room_id)
        if phase != "shutdown" and (nid is None or not task.wanted["purge"]):
            self._finish(txn, task, progress)
            return None
        if phase == "close":
            _close(txn, task, progress)
        elif phase == "rows":
            _delete_rows(txn, task, progress)
        elif phase == "events":
            if not room_removal.delete_events(txn, nid or 0, EVENTS):
                progress["phase"] = "rest"
        elif phase == "rest":
            rooms.lock(txn, [task.room_id])
            room_removal.delete_rest(txn, nid or 0, task.room_id)
            txn.invalidate(rooms.NUMBERS, task.room_id)
            self._finish(txn, task, progress)
            return None
        if progress != task.progress:
            room_tasks.advance(txn, task_id, progress)
        return str(progress["phase"])

    def _finish(self, txn: Transaction, task: RoomTask, progress: JsonObject) -> None:
        progress.pop("users", None)
        room_tasks.finish(txn, task.task_id, progress, int(self._clock.seconds() * 1000))

    def _pass(self, txn: Transaction, task_id: str, phase: str, following: str) -> None:
        """A phase is over."""
        task = room_tasks.lock(txn, task_id)
        if task is not None and not task.is_over and task.progress["phase"] == phase:
            room_tasks.advance(txn, task_id, {**task.progress, "phase": following})

    async def _wait_for_others(self, room_id: str) -> None:
        """Wait until the servers that can be reached have got what was sent to the room."""
        until = self._clock.seconds() + SENT_S
        while self._clock.seconds() < until and not await self._db.read(_is_sent, room_id):
            await deferLater(self._clock, _LOOK_S, lambda: None)


def _is_sent(txn: Transaction, room_id: str) -> bool:
    """Whether every server in a room has got its newest event, or is away."""
    room = rooms.get(txn, room_id)
    if room is None or not room.remote_servers:
        return True
    behind = min(destinations.shard_positions(txn, range(_SHARDS)).values()) < room.last_pos
    for server in room_servers.of_room(txn, room.room_nid):
        row = destinations.get(txn, server)
        if row is None and behind:
            return False
        if row is not None and row.failing_since is None and row.pos < room.last_pos:
            return False
    return True


def _close(txn: Transaction, task: RoomTask, progress: JsonObject) -> None:
    room = rooms.lock(txn, [task.room_id]).get(task.room_id)
    if room is None:
        return
    if memberships.local_joined(txn, room.room_nid) and not task.wanted["force_purge"]:
        raise errors.unknown("Users are still joined to this room")
    progress.update(phase="rows", table=0)
    users = [row.user_id for row in memberships.of_room(txn, room.room_nid) if row.is_local]
    gone_rooms.note(txn, room.room_nid, txn.next_pos())
    room_removal.behead(txn, room.room_nid)
    txn.notify(*(f"user:{user_id}" for user_id in users))


def _delete_rows(txn: Transaction, task: RoomTask, progress: JsonObject) -> None:
    if progress["table"] >= len(_TABLES):
        progress["phase"] = "events"
        return
    table, column = _TABLES[progress["table"]]
    value = rooms.nid(txn, task.room_id) if column == "room_nid" else task.room_id
    if not room_removal.delete_some(txn, table, column, value, ROWS):
        progress["table"] += 1
