"""The work that the server has taken on for later, as administrators are shown it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IReactorTime

from storage import jobs, mass_redactions, room_tasks
from storage.database import Database
from storage.transaction import Transaction

MOST = 1000
"""Tasks of each kind in one answer."""

_OWN_TABLES = ("redact_all_events", "room_task")


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `status`: scheduled, active, complete, failed; times in milliseconds."""

    task_id: str
    action: str
    status: str
    timestamp_ms: int
    resource_id: str | None = None
    result: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class WantedTasks:
    """Which tasks to show; None: whatever it is."""

    action: str | None = None
    resource_id: str | None = None
    status: str | None = None
    before: int | None = None

    def has(self, task: Task) -> bool:
        """Whether a task is one of them."""
        return (
            self.action in (None, task.action)
            and self.resource_id in (None, task.resource_id)
            and self.status in (None, task.status)
            and (self.before is None or task.timestamp_ms < self.before)
        )


class ScheduledTasks:
    """Shows the work of the whole server, whatever process does it."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

    async def listed(self, wanted: WantedTasks) -> list[Task]:
        """The newest of the wanted tasks, the oldest of them first."""
        now_ms = int(self._clock.seconds() * 1000)

        def read(txn: Transaction) -> list[Task]:
            sources: list[Callable[[Transaction], list[Task]]] = [_redactions, _of_rooms]
            found = [task for source in sources for task in source(txn) if wanted.has(task)]
            kind = wanted.action
            waiting = [_job(row) for row in jobs.listed(txn, kind, wanted.before, now_ms, MOST)]
            # Of these there are better records.
            found += [
                task for task in waiting if wanted.has(task) and task.action not in _OWN_TABLES
            ]
            return sorted(found, key=lambda task: (task.timestamp_ms, task.task_id))

        return await self._db.read(read)


def _redactions(txn: Transaction) -> list[Task]:
    return [
        Task(
            row.redact_id,
            "redact_all_events",
            row.status,
            row.changed_ts,
            row.user_id,
            {"failed_redactions": row.failures} if row.is_over else None,
            row.error,
        )
        for row in mass_redactions.newest(txn, MOST)
    ]


def _of_rooms(txn: Transaction) -> list[Task]:
    return [
        Task(
            row.task_id,
            row.kind,
            row.status,
            row.finished_ts or row.created_ts,
            row.room_id,
            error=row.error,
        )
        for row in room_tasks.newest(txn, MOST)
    ]


def _job(row: jobs.ListedJob) -> Task:
    told = row.payload if isinstance(row.payload, dict) else {}
    resource = told.get("room_id") or told.get("user_id")
    return Task(
        row.job_id,
        row.kind,
        row.status,
        row.ts,
        resource if isinstance(resource, str) else None,
        error=row.error if row.status == "failed" else None,
    )
