"""Locking and suspending accounts (Client-server API, "Server administration")."""

from __future__ import annotations

import msgspec

from homeserver.core.ids import UserID
from homeserver.users.moderation import AccountModeration, Measure
from homeserver.web.endpoint import Auth, Requester, endpoint

_LOCK = "/_matrix/client/v1/admin/lock/{user_id}"
_SUSPEND = "/_matrix/client/v1/admin/suspend/{user_id}"
_UNSTABLE = "/_matrix/client/unstable/uk.timedout.msc4323/admin"
_OLD_LOCK = (f"{_UNSTABLE}/lock/{{user_id}}",)
_OLD_SUSPEND = (f"{_UNSTABLE}/suspend/{{user_id}}",)


class Locked(msgspec.Struct, frozen=True):
    locked: bool


class Suspended(msgspec.Struct, frozen=True):
    suspended: bool


@endpoint("GET", _LOCK, auth=Auth.ADMIN, rate="read", also=_OLD_LOCK)
async def get_locked(user_id: UserID, moderation: AccountModeration) -> Locked:
    """Whether an account is locked."""
    return Locked(await moderation.get(Measure.LOCK, user_id))


@endpoint("PUT", _LOCK, auth=Auth.ADMIN, rate="write", also=_OLD_LOCK)
async def put_locked(
    requester: Requester, user_id: UserID, body: Locked, moderation: AccountModeration
) -> Locked:
    """Lock or unlock an account."""
    await moderation.set(Measure.LOCK, requester, user_id, body.locked)
    return body


@endpoint("GET", _SUSPEND, auth=Auth.ADMIN, rate="read", also=_OLD_SUSPEND)
async def get_suspended(user_id: UserID, moderation: AccountModeration) -> Suspended:
    """Whether an account is suspended."""
    return Suspended(await moderation.get(Measure.SUSPEND, user_id))


@endpoint("PUT", _SUSPEND, auth=Auth.ADMIN, rate="write", also=_OLD_SUSPEND)
async def put_suspended(
    requester: Requester, user_id: UserID, body: Suspended, moderation: AccountModeration
) -> Suspended:
    """Suspend an account, or lift that."""
    await moderation.set(Measure.SUSPEND, requester, user_id, body.suspended)
    return body


ENDPOINTS = [get_locked, put_locked, get_suspended, put_suspended]
