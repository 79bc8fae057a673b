"""OpenID tokens: proving to a third party who one is (Client-server API, "OpenID")."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import unknown_token
from homeserver.core.ids import UserID
from homeserver.users.secret_tokens import new_token, token_hash
from storage import one_time_tokens
from storage.database import Database

LIFETIME_S = 3600


@dataclass(frozen=True, slots=True)
class OpenIdToken:
    """A token for the userinfo endpoint, and nothing else."""

    access_token: str
    expires_in_s: int


class OpenId:
    """Gives out OpenID tokens and says whose they are."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

    async def request_token(self, user_id: UserID) -> OpenIdToken:
        """A token that shows for an hour who the user is."""
        token = new_token()
        await self._db.write(
            one_time_tokens.insert,
            one_time_tokens.OPENID,
            token_hash(token),
            user_id,
            self._now() + LIFETIME_S * 1000,
        )
        return OpenIdToken(token, LIFETIME_S)

    async def user_of(self, token: str) -> UserID:
        """Whose token this is. Raises MatrixError 401 M_UNKNOWN_TOKEN."""
        found = await self._db.read(
            one_time_tokens.get, one_time_tokens.OPENID, token_hash(token), self._now()
        )
        if found is None:
            raise unknown_token()
        return UserID(found)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
