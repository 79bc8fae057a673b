"""Administrators who use the accounts of others (Synapse's "Login as a user").

A token is made that belongs to no device: the account's owner is not told. It ends at its time,
when it logs out, and when the administrator logs out everywhere, is locked, closed, or is an
administrator no more.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import forbidden, invalid_param, not_found, user_deactivated
from homeserver.core.ids import UserID
from homeserver.users.secret_tokens import new_token, token_hash
from homeserver.web.request import Requester
from storage import tokens, users
from storage.database import Database
from storage.transaction import Transaction


class Puppets:
    """Gives administrators tokens for other accounts."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

    async def begin(self, requester: Requester, user_id: UserID, valid_until_ms: int | None) -> str:
        """A new token for the account, until a time in milliseconds, or for good.

        Raises MatrixError: 400 `M_INVALID_PARAM` for oneself and for a time that is past; 404
        `M_NOT_FOUND`; 403 `M_USER_DEACTIVATED`.
        """
        now_ms = int(self._clock.seconds() * 1000)
        admin = requester.puppeteer or requester.user_id
        if user_id in (admin, requester.user_id):
            raise invalid_param("user_id: this is your own account.")
        if valid_until_ms is not None and valid_until_ms <= now_ms:
            raise invalid_param("valid_until_ms: this time is past.")
        token = new_token()

        def write(txn: Transaction) -> None:
            user = users.lock_user(txn, user_id)
            if user is None:
                raise not_found("There is no such account.")
            if user.deactivated:
                raise user_deactivated()
            acting = users.lock_user(txn, admin)
            if acting is None or acting.deactivated or not acting.is_admin:
                raise forbidden("You are not an administrator any more.")
            tokens.insert_access_token(
                txn,
                token_hash(token),
                user_id,
                tokens.NO_DEVICE,
                now_ms=now_ms,
                expires_ts=valid_until_ms,
                puppeteer=admin,
            )

        await self._db.write(write)
        return token
