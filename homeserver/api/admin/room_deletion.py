"""Shutting rooms down and removing them, as Synapse's "Delete Room API" has it."""

from __future__ import annotations

import msgspec

from homeserver.api.admin import audit
from homeserver.core import errors
from homeserver.core.ids import InvalidIdentifier, RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.deletion import Deletion, RoomDeletion
from homeserver.rooms.shutdown import NOTHING_DONE
from homeserver.web.endpoint import Auth, Requester, endpoint
from storage.room_tasks import FAILED, RoomTask

_V1, _V2 = "/_synapse/admin/v1", "/_synapse/admin/v2"


class DeletionBody(msgspec.Struct):
    new_room_user_id: str | None = None
    room_name: str | None = None
    message: str | None = None
    block: bool = False
    purge: bool = True
    force_purge: bool = False


class Shutdown(msgspec.Struct):
    kicked_users: list[str]
    failed_to_kick_users: list[str]
    local_aliases: list[str]
    new_room_id: str | None


class Begun(msgspec.Struct):
    delete_id: str


class DeletionStatus(msgspec.Struct, omit_defaults=True):
    delete_id: str
    room_id: str
    status: str
    shutdown_room: Shutdown
    error: str | None = None


class Deletions(msgspec.Struct):
    results: list[DeletionStatus]


async def _begin(
    requester: Requester, room_id: str, body: DeletionBody, deletions: RoomDeletion
) -> str:
    if body.new_room_user_id is not None:
        try:
            UserID.parse(body.new_room_user_id)
        except InvalidIdentifier:
            raise errors.invalid_param("`new_room_user_id` is not a user ID.") from None
    wanted = Deletion(
        requester.user_id,
        body.new_room_user_id,
        body.room_name,
        body.message,
        body.block,
        body.purge,
        body.force_purge,
    )
    task_id = await deletions.begin(room_id, wanted)
    audit.record(requester, "delete_room", room_id, purge=body.purge, block=body.block)
    return task_id


def _shutdown(told: JsonObject) -> Shutdown:
    return Shutdown(**told)


def _status(task: RoomTask) -> DeletionStatus:
    return DeletionStatus(
        task.task_id,
        task.room_id,
        task.status,
        _shutdown(task.progress["shutdown"]),
        task.error if task.status == FAILED else None,
    )


@endpoint("DELETE", _V1 + "/rooms/{room_id}", auth=Auth.ADMIN, rate="write", optional_body=True)
async def delete_room(
    requester: Requester, room_id: RoomID, body: DeletionBody, deletions: RoomDeletion
) -> Shutdown:
    """Have everybody leave a room and remove it; answered when that is done."""
    task = await deletions.over(await _begin(requester, room_id, body, deletions))
    if task is None:
        return _shutdown(NOTHING_DONE)
    if task.status == FAILED:
        raise errors.unknown(task.error or "The room could not be deleted.")
    return _shutdown(task.progress["shutdown"])


@endpoint("DELETE", _V2 + "/rooms/{room_id}", auth=Auth.ADMIN, rate="write", optional_body=True)
async def begin_room_deletion(
    requester: Requester, room_id: RoomID, body: DeletionBody, deletions: RoomDeletion
) -> Begun:
    """Have everybody leave a room and remove it, in the background."""
    return Begun(await _begin(requester, room_id, body, deletions))


@endpoint("GET", _V2 + "/rooms/{room_id}/delete_status", auth=Auth.ADMIN, rate="read")
async def get_deletions_of_room(room_id: RoomID, deletions: RoomDeletion) -> Deletions:
    """The deletions of a room: under way, or over for not long."""
    tasks = await deletions.of_room(room_id)
    if not tasks:
        raise errors.not_found(f"No delete task for room_id '{room_id}' found")
    return Deletions([_status(task) for task in tasks])


@endpoint("GET", _V2 + "/rooms/delete_status/{delete_id}", auth=Auth.ADMIN, rate="read")
async def get_deletion(delete_id: str, deletions: RoomDeletion) -> DeletionStatus:
    """How far a deletion is."""
    task = await deletions.get(delete_id)
    if task is None:
        raise errors.not_found(f"delete id '{delete_id}' not found")
    return _status(task)


ENDPOINTS = [delete_room, begin_room_deletion, get_deletions_of_room, get_deletion]
