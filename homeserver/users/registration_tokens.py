"""Registration tokens (Client-server API, "Token-authenticated registration")."""

from __future__ import annotations

import re
import secrets

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, invalid_param
from storage import registration_tokens
from storage.database import Database
from storage.registration_tokens import RegistrationTokenRow

# Appendices, "Opaque Identifiers", at most 64 characters
_TOKEN = re.compile(r"[0-9A-Za-z\-._~]{1,64}")


def is_well_formed(token: str) -> bool:
    """Whether a text can be a registration token."""
    return _TOKEN.fullmatch(token) is not None


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

    async def is_valid(self, token: str) -> bool:
        """Whether somebody could register with this token now."""
        if not is_well_formed(token):
            return False
        now_ms = int(self._clock.seconds() * 1000)
        return await self._db.read(registration_tokens.is_valid, token, now_ms)

    async def list_all(self) -> list[RegistrationTokenRow]:
        """All tokens, valid or not."""
        return await self._db.read(registration_tokens.list_tokens)

    async def remove(self, token: str) -> bool:
        """Remove a token, which nobody can use any more; False if there is none."""
        return await self._db.write(registration_tokens.delete, token)
