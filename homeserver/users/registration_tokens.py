"""Registration tokens (Client-server API, "Token-authenticated registration")."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, invalid_param, not_found
from storage import registration_tokens
from storage.database import Database
from storage.registration_tokens import RegistrationTokenRow
from storage.transaction import Transaction

# Appendices, "Opaque Identifiers", at most 64 characters
_CHARACTERS = string.ascii_letters + string.digits + "-_"
_TOKEN = re.compile(r"[0-9A-Za-z\-._~]{1,64}")


def is_well_formed(token: str) -> bool:
    """Whether a text can be a registration token."""
    return _TOKEN.fullmatch(token) is not None


def random_token(length: int) -> str:
    """A token that nobody guesses, if it is not too short."""
    return "".join(secrets.choice(_CHARACTERS) for _ in range(length))


class RegistrationTokens:
    """Makes and checks registration tokens."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

    async def create(
        self,
        token: str | None = None,
        *,
        uses_allowed: int | None = None,
        expires_ts: int | None = None,
    ) -> str:
        """Add a token, a random one if none is given; None means without limit.

        Raises MatrixError: 400 M_INVALID_PARAM if it is malformed, or taken.
        """
        token = secrets.token_urlsafe(12) if token is None else token
        if not is_well_formed(token):
            raise invalid_param("A registration token has 1 to 64 characters: A-Z a-z 0-9 . _ ~ -")
        if not await self._db.write(registration_tokens.insert, token, uses_allowed, expires_ts):
            raise MatrixError(400, "M_INVALID_PARAM", "There is a registration token of this name.")
        return token

    async def get(self, token: str) -> RegistrationTokenRow:
        """A token, valid or not. Raises MatrixError 404 M_NOT_FOUND."""
        found = await self._db.read(registration_tokens.get, token)
        if found is None:
            raise _unknown(token)
        return found

    async def listed(self, valid: bool | None) -> list[RegistrationTokenRow]:
        """The tokens that can, or cannot, still be used; None: all."""
        return await self._db.read(registration_tokens.page, valid, self.now_ms())

    async def change(
        self,
        token: str,
        change: Callable[[RegistrationTokenRow], RegistrationTokenRow],
    ) -> RegistrationTokenRow:
        """Change how often and how long a token can be used; what it is then.

        Raises MatrixError 404 M_NOT_FOUND, and what `change` raises.
        """

        def write(txn: Transaction) -> RegistrationTokenRow:
            row = registration_tokens.lock(txn, token)
            if row is None:
                raise _unknown(token)
            new = change(row)
            registration_tokens.update(txn, token, new.uses_allowed, new.expires_ts)
            return new

        return await self._db.write(write)

    def now_ms(self) -> int:
        """The time in milliseconds."""
        return int(self._clock.seconds() * 1000)

    async def is_valid(self, token: str) -> bool:
        """Whether somebody could register with this token now."""
        if not is_well_formed(token):
            return False
        return await self._db.read(registration_tokens.is_valid, token, self.now_ms())

    async def list_all(self) -> list[RegistrationTokenRow]:
        """All tokens, valid or not."""
        return await self._db.read(registration_tokens.list_tokens)

    async def remove(self, token: str) -> bool:
        """Remove a token, which nobody can use any more; False if there is none."""
        return await self._db.write(registration_tokens.delete, token)


def _unknown(token: str) -> MatrixError:
    return not_found(f"No such registration token: {token}")
