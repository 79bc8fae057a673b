"""Having all users of this server leave a room, and go to another one perhaps.

The first part of deleting a room. Done again after a crash, it goes on with the users that are
left: whom it has to move, and the room that it made, are noted before anything happens to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from homeserver.core.errors import MatrixError
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.create import RoomCreation, WantedRoom
from homeserver.rooms.membership import Membership
from homeserver.rooms.send import Sending
from homeserver.web.request import Requester
from storage import aliases, memberships, published, room_tasks, rooms
from storage.database import Database
from storage.room_tasks import RoomTask
from storage.transaction import Transaction

ROOM_NAME = "Content Violation Notification"
MESSAGE = "The room that you were in was closed by the administrators of this server."
ROUNDS = 5
"""How often users are looked for who came in meanwhile."""

NOTHING_DONE: JsonObject = {
    "kicked_users": [],
    "failed_to_kick_users": [],
    "local_aliases": [],
    "new_room_id": None,
}
"""What is told of a shutdown that has yet to begin."""

_log = structlog.get_logger(__name__)


class _MadeAlready(MatrixError):
    """The new room is there."""

    def __init__(self) -> None:
        super().__init__(400, "M_UNKNOWN", "The new room is there already.")


class RoomShutdown:
    """Shuts rooms down. See the module."""

    def __init__(
        self,
        db: Database,
        creation: RoomCreation,
        members: Membership,
        sending: Sending,
    ) -> None:
        self._db = db
        self._creation = creation
        self._members = members
        self._sending = sending

    async def run(self, task: RoomTask) -> None:
        """Have everybody leave; `shutdown` in the task's progress tells of it."""
        creator = task.wanted.get("new_room_user_id")
        if await self._db.read(rooms.nid, task.room_id) is None:
            return
        if creator is not None:
            await self._make_room(task, creator)
        for _ in range(ROUNDS):
            waiting = await self._db.write(_waiting, task.task_id)
            if not waiting:
                break
            for user_id, membership in waiting.items():
                await self._move(task, user_id, membership)
        if creator is not None:
            await self._say(task, creator)
            await self._db.write(_move_aliases, task.task_id)

    async def _make_room(self, task: RoomTask, creator: str) -> None:
        if task.progress["shutdown"]["new_room_id"] is not None:
            return

        def note(txn: Transaction, room_nid: int, room_id: str) -> None:
            def change(told: JsonObject) -> None:
                if told["new_room_id"] is not None:
                    raise _MadeAlready
                told["new_room_id"] = room_id

            _change(txn, task.task_id, change)

        wanted = WantedRoom(
            preset="public_chat",
            name=task.wanted.get("room_name") or ROOM_NAME,
            power_level_content_override={"users_default": -10},
        )
        try:
            await self._creation.create(Requester(UserID(creator)), wanted, within=note)
        except _MadeAlready:
            return  # by another process that was thought to be dead

    async def _move(self, task: RoomTask, user_id: str, membership: str) -> None:
        requester = Requester(UserID(user_id))
        room_id = RoomID(task.room_id)
        now = await self._db.read(room_tasks.get, task.task_id)
        new_room_id = now.progress["shutdown"]["new_room_id"] if now is not None else None
        is_kicked = True
        try:
            await self._members.leave(requester, room_id, None, must_leave=True)
            await self._members.forget(requester.user_id, room_id)
            if new_room_id is not None and membership == "join":
                await self._members.join(requester, RoomID(new_room_id))
        except MatrixError as refusal:
            _log.warning(
                "a user could not be moved", user=user_id, room_id=room_id, reason=refusal.error
            )
            is_kicked = False
        kind = "kicked_users" if is_kicked else "failed_to_kick_users"

        def done(told: JsonObject) -> None:
            if user_id not in told[kind]:
                told[kind].append(user_id)

        await self._db.write(_change, task.task_id, done)

    async def _say(self, task: RoomTask, creator: str) -> None:
        now = await self._db.read(room_tasks.get, task.task_id)
        new_room_id = now.progress["shutdown"]["new_room_id"] if now is not None else None
        if new_room_id is None:
            return
        content = {"msgtype": "m.text", "body": task.wanted.get("message") or MESSAGE}
        # The transaction keeps it from being said twice.
        await self._sending.send_event(
            Requester(UserID(creator)),
            RoomID(new_room_id),
            "m.room.message",
            content,
            f"shutdown-{task.task_id}",
        )


def _change(txn: Transaction, task_id: str, change: Callable[[JsonObject], object]) -> None:
    """Change what is told of the shutdown."""
    task = room_tasks.lock(txn, task_id)
    if task is None or task.is_over:
        return
    told: dict[str, Any] = dict(task.progress["shutdown"])
    change(told)
    room_tasks.advance(txn, task_id, {**task.progress, "shutdown": told})


def _waiting(txn: Transaction, task_id: str) -> dict[str, str]:
    """Users who are still to be moved, with the memberships that they had; they are noted."""
    task = room_tasks.lock(txn, task_id)
    nid = rooms.nid(txn, task.room_id) if task is not None else None
    if task is None or task.is_over or nid is None:
        return {}
    told = task.progress["shutdown"]
    noted: dict[str, str] = dict(task.progress.get("users") or {})
    present = {
        row.user_id: row.membership
        for row in memberships.of_room(txn, nid, ["join", "invite", "knock"])
        if row.is_local
    }
    failed = set(told["failed_to_kick_users"])
    waiting = {
        user_id: noted.get(user_id, present.get(user_id, ""))
        for user_id in [*noted, *(user for user in present if user not in noted)]
        if user_id not in failed and (user_id not in told["kicked_users"] or user_id in present)
    }
    room_tasks.advance(txn, task_id, {**task.progress, "users": {**present, **noted}})
    return waiting


def _move_aliases(txn: Transaction, task_id: str) -> None:
    """Have the aliases of the old room lead to the new one."""
    task = room_tasks.lock(txn, task_id)
    if task is None or task.is_over:
        return
    told = dict(task.progress["shutdown"])
    nids = [rooms.nid(txn, room_id) for room_id in (task.room_id, told["new_room_id"] or "")]
    old, new = nids
    if old is None or new is None:
        return
    moved = aliases.of_room(txn, old)
    aliases.move(txn, old, new)
    published.move(txn, old, new)
    told["local_aliases"] = sorted({*told["local_aliases"], *moved})
    room_tasks.advance(txn, task_id, {**task.progress, "shutdown": told})
