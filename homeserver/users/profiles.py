"""Profiles: display name, avatar and any further field (Client-server API, "Profiles").

- A field's name has at most 255 bytes, a profile less than 64 KiB.
- `displayname`, `avatar_url` and `m.tz` are strings; an empty display name or avatar removes
  the field. Other fields hold any JSON.
- Guests change only their display name.
"""

from __future__ import annotations

import re
from typing import Any

import structlog

from homeserver.core import canonical
from homeserver.core.errors import (
    MatrixError,
    bad_json,
    forbidden,
    guest_access_forbidden,
    invalid_param,
    not_found,
)
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.hooks import UserHooks
from homeserver.users.remote_profiles import RemoteProfiles
from homeserver.web.request import Requester
from storage import profile_changes, profiles
from storage.database import Database
from storage.transaction import Transaction

MAX_FIELD_NAME_BYTES = 255
MAX_PROFILE_BYTES = 65_536
MAX_DISPLAYNAME_CHARACTERS = 256
MAX_AVATAR_URL_CHARACTERS = 1000

# Appendices, "Common Namespaced Identifier Grammar"
_FIELD_NAME = re.compile(r"[a-z][a-z0-9._-]*")
_STRINGS = {
    "displayname": MAX_DISPLAYNAME_CHARACTERS,
    "avatar_url": MAX_AVATAR_URL_CHARACTERS,
    "m.tz": MAX_FIELD_NAME_BYTES,
}
_log = structlog.get_logger(__name__)


class Profiles:
    """The profiles of the users of one server name, and those that other servers tell.

    `remote` is what asks other servers; without it only local users have a profile.
    """

    def __init__(self, db: Database, hooks: UserHooks, server_name: str) -> None:
        self._db = db
        self._hooks = hooks
        self._server_name = server_name
        self.remote: RemoteProfiles | None = None

    async def get(self, user_id: UserID) -> JsonObject:
        """All fields of a user's profile.

        Raises MatrixError: 404 M_NOT_FOUND if there is no such user; see also `RemoteProfiles`.
        """
        if user_id.domain == self._server_name:
            return await self.get_local(user_id)
        if self.remote is None:
            raise not_found("This user's profile is not known here.")
        return await self.remote.get(user_id)

    async def get_local(self, user_id: UserID) -> JsonObject:
        """All fields of a profile. Raises MatrixError 404 M_NOT_FOUND: no such user here."""
        if user_id.domain != self._server_name:
            raise not_found("This user is not of this homeserver.")
        profile = await self._db.query(profiles.of_active, user_id)
        if profile is None:
            raise not_found("There is no such user.")
        return profile

    async def get_field(self, user_id: UserID, field: str) -> Any:
        """One field. Raises MatrixError 404 M_NOT_FOUND: not set, or no such user."""
        profile = await self.get(user_id)
        if field not in profile:
            raise not_found("This profile field is not set.")
        return profile[field]

    async def set_field(
        self, requester: Requester, user_id: UserID, field: str, value: Any
    ) -> None:
        """Set one field of a profile.

        Raises MatrixError: 403 M_FORBIDDEN for the profile of another user, 403
        M_GUEST_ACCESS_FORBIDDEN, 400 M_KEY_TOO_LARGE, M_PROFILE_TOO_LARGE, M_INVALID_PARAM,
        M_BAD_JSON.
        """
        self.check_may_change(requester, user_id, field)
        limit = _STRINGS.get(field)
        if limit is not None:
            if not isinstance(value, str):
                raise bad_json(f"{field} must be a string.")
            if len(value) > limit:
                raise invalid_param(f"{field} may have at most {limit} characters.")
            if not value and field != "m.tz":
                await self._change(_delete_field, user_id, field)
                return
        await self._change(_set_field, user_id, field, value)

    async def delete_field(self, requester: Requester, user_id: UserID, field: str) -> None:
        """Remove one field; no error if it is not set. Raises MatrixError as `set_field` does."""
        self.check_may_change(requester, user_id, field)
        await self._change(_delete_field, user_id, field)

    async def _change(self, change: Any, user_id: UserID, field: str, *args: Any) -> None:
        if await self._db.write(change, user_id, field, *args):
            for hook in self._hooks.profile_changed:
                try:
                    await hook(user_id, field)
                except Exception:
                    _log.exception("What follows a change of profile failed", user_id=user_id)

    def check_may_change(self, requester: Requester, user_id: UserID, field: str) -> None:
        if requester.user_id != user_id and not requester.is_admin:
            raise forbidden("You cannot change the profile of another user.")
        if user_id.domain != self._server_name:
            raise forbidden("This user is not of this homeserver.")
        if len(field.encode("utf-8", "surrogatepass")) > MAX_FIELD_NAME_BYTES:
            error = f"The name of a field may have at most {MAX_FIELD_NAME_BYTES} bytes."
            raise MatrixError(400, "M_KEY_TOO_LARGE", error)
        if _FIELD_NAME.fullmatch(field) is None:
            raise invalid_param("The name of a field starts with a-z and holds a-z 0-9 . _ - only.")
        if requester.is_guest and field != "displayname":
            raise guest_access_forbidden()


def _set_field(txn: Transaction, user_id: str, field: str, value: Any) -> bool:
    profile = profiles.of_active(txn, user_id)
    if profile is None:
        raise not_found("There is no such user.")
    if field in profile and canonical.encode_lenient(profile[field]) == canonical.encode_lenient(
        value
    ):
        return False
    profile[field] = value
    if len(canonical.encode_lenient(profile)) >= MAX_PROFILE_BYTES:
        error = "A profile must have less than 64 KiB."
        raise MatrixError(400, "M_PROFILE_TOO_LARGE", error)
    profiles.put_field(txn, user_id, field, value)
    profile_changes.record(txn, user_id, field)
    return True


def _delete_field(txn: Transaction, user_id: str, field: str) -> bool:
    if not profiles.delete_field(txn, user_id, field):
        return False
    profile_changes.record(txn, user_id, field)
    return True
