"""Credentials for TURN servers (Client-server API, "Voice over IP", server behaviour)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """What a client gives to a TURN server; `ttl` in seconds."""

    username: str
    password: str
    uris: list[str]
    ttl: int


class Turn:
    """Makes credentials that the TURN servers verify with the secret they share with this one."""

    def __init__(
        self,
        clock: IReactorTime,
        *,
        uris: Sequence[str] = (),
        shared_secret: str | None = None,
        lifetime_ms: int = 86_400_000,
    ) -> None:
        self._clock = clock
        self._uris = list(uris)
        self._secret = shared_secret
        self._lifetime_s = lifetime_ms // 1000

    def credentials(self, user_id: str) -> TurnCredentials | None:
        """Credentials of limited life; None if this server has no TURN servers."""
        if not self._uris or self._secret is None:
            return None
        username = f"{int(self._clock.seconds()) + self._lifetime_s}:{user_id}"
        digest = hmac.new(self._secret.encode(), username.encode(), hashlib.sha1).digest()
        return TurnCredentials(
            username, base64.b64encode(digest).decode(), self._uris, self._lifetime_s
        )
