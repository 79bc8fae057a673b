"""Purges and deletions of rooms: what was asked for, how far they are. Table `room_tasks`.

A task is worked on in many small transactions. Each of them locks the task's row, goes on from
the progress that it finds there, and writes the new one: so it does not matter how often, by how
many processes, or after what crash a task is gone on with.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, NamedTuple

from homeserver.core.types import JsonObject
from storage.transaction import Transaction

SCHEDULED, ACTIVE, COMPLETE, FAILED = "scheduled", "active", "complete", "failed"
KEPT_MS = 7 * 24 * 3600 * 1000
"""For how long one can ask what became of a task."""

CHANNEL = "room-task"
"""Begins the name of the channel on which the end of a task is hinted at."""


class RoomTask(NamedTuple):
    """A task; times in milliseconds."""

    task_id: str
    kind: str
    room_id: str
    status: str
    wanted: JsonObject
    progress: JsonObject
    error: str | None
    is_closing: bool
    created_ts: int
    finished_ts: int | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done."""
        return self.status in (COMPLETE, FAILED)


_COLUMNS = ", ".join(RoomTask._fields)


def channel(task_id: str) -> str:
    """The channel on which the end of a task is hinted at."""
    return f"{CHANNEL}:{task_id}"


def add(
    txn: Transaction,
    kind: str,
    room_id: str,
    wanted: JsonObject,
    progress: JsonObject,
    now: int,
    *,
    is_closing: bool = False,
) -> str:
    """Note a new task; its ID. Tasks that are over for long are forgotten."""
    txn.execute("DELETE FROM room_tasks WHERE finished_ts < ?", (now - KEPT_MS,))
    task_id = secrets.token_urlsafe(12)
    txn.execute(
        f"INSERT INTO room_tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, NULL)",
        (
            task_id,
            kind,
            room_id,
            SCHEDULED,
            json.dumps(wanted),
            json.dumps(progress),
            is_closing,
            now,
        ),
    )
    return task_id


def get(txn: Transaction, task_id: str) -> RoomTask | None:
    """The task of this ID."""
    raw = txn.one(f"SELECT {_COLUMNS} FROM room_tasks WHERE task_id = ?", (task_id,))
    return _task(raw) if raw else None


def lock(txn: Transaction, task_id: str) -> RoomTask | None:
    """The task of this ID, locked until the transaction ends."""
    raw = txn.one(
        f"SELECT {_COLUMNS} FROM room_tasks WHERE task_id = ?{txn.dialect.for_update}", (task_id,)
    )
    return _task(raw) if raw else None


def of_room(txn: Transaction, kind: str, room_id: str) -> list[RoomTask]:
    """The tasks of a kind for a room, the oldest first."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM room_tasks WHERE room_id = ? AND kind = ?"
        " ORDER BY created_ts, task_id",
        (room_id, kind),
    )
    return [_task(raw) for raw in rows]


def newest(txn: Transaction, limit: int) -> list[RoomTask]:
    """The tasks that were asked for last."""
    sql = f"SELECT {_COLUMNS} FROM room_tasks ORDER BY created_ts DESC, task_id LIMIT ?"
    return [_task(raw) for raw in txn.all(sql, (limit,))]


def advance(txn: Transaction, task_id: str, progress: JsonObject) -> None:
    """The task is under way, and this far."""
    txn.execute(
        "UPDATE room_tasks SET status = ?, progress = ? WHERE task_id = ?",
        (ACTIVE, json.dumps(progress), task_id),
    )


def finish(
    txn: Transaction, task_id: str, progress: JsonObject, now: int, error: str | None = None
) -> None:
    """The task is over, by an error if there is one."""
    txn.execute(
        "UPDATE room_tasks SET status = ?, progress = ?, error = ?, is_closing = ?,"
        " finished_ts = ? WHERE task_id = ?",
        (FAILED if error else COMPLETE, json.dumps(progress), error, False, now, task_id),
    )
    txn.notify(channel(task_id))


def _task(raw: tuple[Any, ...]) -> RoomTask:
    values = list(raw)
    values[4], values[5] = json.loads(values[4]), json.loads(values[5])
    values[7] = bool(values[7])
    return RoomTask(*values)
