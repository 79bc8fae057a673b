"""What software this is, and what it has to do, as Synapse tells administrators."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from homeserver import __version__
from homeserver.rooms.tasks import ScheduledTasks, Task, WantedTasks
from homeserver.web.endpoint import Auth, endpoint

_BASE = "/_synapse/admin/v1"


class VersionAnswer(msgspec.Struct):
    server_version: str


class TaskQuery(msgspec.Struct, frozen=True):
    action_name: str | None = None
    resource_id: str | None = None
    status: Literal["scheduled", "active", "complete", "cancelled", "failed"] | None = None
    max_timestamp: int | None = None


class TaskAnswer(msgspec.Struct):
    id: str
    action: str
    status: str
    timestamp_ms: int
    resource_id: str | None
    result: Any
    error: str | None


class TasksAnswer(msgspec.Struct):
    scheduled_tasks: list[TaskAnswer]


@endpoint("GET", f"{_BASE}/server_version", auth=Auth.NONE, rate="read")
async def get_server_version() -> VersionAnswer:
    """Name and version of the software."""
    return VersionAnswer(f"Hearth {__version__}")


@endpoint("GET", f"{_BASE}/scheduled_tasks", auth=Auth.ADMIN, rate="read")
async def get_scheduled_tasks(query: TaskQuery, tasks: ScheduledTasks) -> TasksAnswer:
    """What the server does beside answering: waiting, under way, done not long ago."""
    wanted = WantedTasks(query.action_name, query.resource_id, query.status, query.max_timestamp)
    return TasksAnswer([_answer(task) for task in await tasks.listed(wanted)])


def _answer(task: Task) -> TaskAnswer:
    return TaskAnswer(
        task.task_id,
        task.action,
        task.status,
        task.timestamp_ms,
        task.resource_id,
        task.result,
        task.error,
    )


ENDPOINTS = [get_server_version, get_scheduled_tasks]
