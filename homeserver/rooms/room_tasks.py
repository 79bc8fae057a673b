"""Long work on single rooms, done in many small transactions: purges and deletions.

A task is a row that says what was asked for and how far it is (`storage.room_tasks`), and a job
that whichever process takes it works on. A process that dies leaves both to the next one, which
goes on where the last committed step ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError
from homeserver.core.types import JsonObject
from storage import jobs, room_tasks, rooms
from storage.database import Database
from storage.feed import Feed
from storage.room_tasks import RoomTask
from storage.transaction import Transaction

TRIES = 8
"""After so many failures a task is given up."""
LOOK_AGAIN_S = 1.0

Work = Callable[[RoomTask], Awaitable[None]]
"""Works on a task until it is over."""

_log = structlog.get_logger(__name__)


class RoomTasks:
    """Begins tasks, works on them, and tells what became of them."""

    KIND = "room_task"

    def __init__(self, db: Database, feed: Feed, clock: IReactorTime) -> None:
        self._db = db
        self._feed = feed
        self._clock = clock
        self._work: dict[str, Work] = {}

    def learn(self, kind: str, work: Work) -> None:
        """Have tasks of a kind worked on by `work`."""
        self._work[kind] = work

    def add(
        self,
        txn: Transaction,
        kind: str,
        room_id: str,
        wanted: JsonObject,
        progress: JsonObject,
        *,
        is_closing: bool = False,
    ) -> str | None:
        """Begin a task soon after the transaction is committed; its ID.

        None while there is one of the kind for the room. Parameters: `is_closing`, whether
        nobody of this server can enter the room meanwhile.
        """
        # Of two requests at the same moment one sees the other's task.
        rooms.lock(txn, [room_id])
        if any(not task.is_over for task in room_tasks.of_room(txn, kind, room_id)):
            return None
        now = self._now_ms()
        task_id = room_tasks.add(txn, kind, room_id, wanted, progress, now, is_closing=is_closing)
        jobs.enqueue(txn, self.KIND, {"task_id": task_id}, now)
        return task_id

    async def get(self, kind: str, task_id: str) -> RoomTask | None:
        """The task of this kind and ID."""
        task = await self._db.read(room_tasks.get, task_id)
        return task if task is not None and task.kind == kind else None

    async def of_room(self, kind: str, room_id: str) -> list[RoomTask]:
        """The tasks of a kind for a room, the oldest first."""
        return await self._db.read(room_tasks.of_room, kind, room_id)

    async def run(self, job: jobs.Job) -> None:
        """The job."""
        await self.work_on(job.payload["task_id"], is_last=job.attempts >= TRIES)

    async def work_on(self, task_id: str, *, is_last: bool = True) -> None:
        """Work on a task until it is over. Others may do so at the same time.

        Parameters: `is_last`, whether a task that fails is given up; otherwise the error is
        raised.
        """
        task = await self._db.read(room_tasks.get, task_id)
        if task is None or task.is_over:
            return
        try:
            await self._work[task.kind](task)
        except CancelledError:
            raise
        except MatrixError as refusal:
            await self._give_up(task, refusal.error)
        except Exception as problem:
            if not is_last:
                raise
            _log.exception("A task for a room failed", task=task_id, room_id=task.room_id)
            await self._give_up(task, f"{type(problem).__name__}: {problem}")

    async def over(self, task_id: str) -> RoomTask | None:
        """Wait until a task is over; the task."""
        while True:
            hint: Deferred[None] = Deferred()

            def hear(pos: int, hint: Deferred[None] = hint) -> None:
                if not hint.called:
                    hint.callback(None)

            unsubscribe = self._feed.subscribe(room_tasks.channel(task_id), hear)
            try:
                task = await self._db.read(room_tasks.get, task_id)
                if task is None or task.is_over:
                    return task
                hint.addTimeout(LOOK_AGAIN_S, self._clock)
                await hint
            except DeferredTimeout:
                continue  # a hint may be lost
            finally:
                unsubscribe()

    async def _give_up(self, task: RoomTask, error: str) -> None:
        def write(txn: Transaction) -> None:
            now = room_tasks.lock(txn, task.task_id)
            if now is not None and not now.is_over:
                room_tasks.finish(txn, task.task_id, now.progress, self._now_ms(), error)

        await self._db.write(write)

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)
