"""Locking and suspending accounts (client-server API, "Account locking", "Account suspension").

What locked and suspended users may do is in the declarations of the endpoints, see
`homeserver.web.router.check_requester`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from homeserver.core.errors import forbidden, invalid_param, not_found
from homeserver.core.ids import UserID
from homeserver.web.request import Requester
from storage import tokens, users
from storage.database import Database
from storage.transaction import Transaction
from storage.users import UserRow


class Measure(Enum):
    """What administrators do to accounts."""

    LOCK = "lock"
    SUSPEND = "suspend"


_SETTERS: dict[Measure, Callable[[Transaction, str, bool], bool]] = {
    Measure.LOCK: users.set_locked,
    Measure.SUSPEND: users.set_suspended,
}


class AccountModeration:
    """What administrators do to accounts; that the requester is one was checked before."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    async def get(self, measure: Measure, user_id: UserID) -> bool:
        """Whether the account is locked, or suspended.

        Raises MatrixError: 400 `M_INVALID_PARAM` for users of other servers, 404 `M_NOT_FOUND`,
        also for a closed account.
        """
        self._check_local(user_id)
        user = await self._db.read(_active, user_id)
        return user.locked if measure is Measure.LOCK else user.suspended

    async def set(
        self, measure: Measure, requester: Requester, user_id: UserID, value: bool
    ) -> None:
        """Take the measure, or lift it.

        Raises MatrixError as `get` does, and 403 `M_FORBIDDEN` for oneself and for other
        administrators.
        """
        self._check_local(user_id)

        def write(txn: Transaction) -> None:
            if user_id == requester.user_id:
                raise forbidden("You cannot do this to yourself.")
            if _active(txn, user_id).is_admin:
                raise forbidden("This is another administrator.")
            _SETTERS[measure](txn, user_id, value)
            txn.invalidate(tokens.CACHE, user_id)

        await self._db.write(write)

    def _check_local(self, user_id: UserID) -> None:
        if user_id.domain != self._server_name:
            raise invalid_param("This user is not of this homeserver.")


def _active(txn: Transaction, user_id: str) -> UserRow:
    user = users.get_user(txn, user_id)
    if user is None or user.deactivated:
        raise not_found("There is no such account.")
    return user
