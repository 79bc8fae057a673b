"""What this server publishes of its own signing keys (Server-Server API, "Publishing Keys")."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from homeserver.core.signing import SigningKey, sign_json
from homeserver.core.types import JsonObject

VALID_FOR_MS = 24 * 3600 * 1000
RENEWED_EVERY_MS = 3600 * 1000


class OwnKeys:
    """The keys of this server, the one to sign with first, retired ones with `expired_ts`."""

    def __init__(self, server_name: str, keys: Sequence[SigningKey], clock: IReactorTime) -> None:
        self.server_name = server_name
        self._active = [key for key in keys if key.expired_ts is None]
        self._retired = [key for key in keys if key.expired_ts is not None]
        self._clock = clock
        self._answer: JsonObject = {}
        self._renew_at = 0

    def published(self) -> JsonObject:
        """The signed answer, valid for 23 hours more at least."""
        now_ms = int(self._clock.seconds() * 1000)
        if not self._answer or now_ms >= self._renew_at:
            self._answer = self._sign(now_ms + VALID_FOR_MS)
            self._renew_at = now_ms + RENEWED_EVERY_MS
        return copy.deepcopy(self._answer)

    def countersign(self, answer: JsonObject) -> JsonObject:
        """Add this server's signature, as a notary, to another server's answer."""
        return sign_json(answer, self.server_name, self._active[0])

    def _sign(self, valid_until_ts: int) -> JsonObject:
        answer: JsonObject = {
            "server_name": self.server_name,
            "valid_until_ts": valid_until_ts,
            "verify_keys": {key.key_id: {"key": key.public_base64} for key in self._active},
            "old_verify_keys": {
                key.key_id: {"key": key.public_base64, "expired_ts": key.expired_ts}
                for key in self._retired
            },
        }
        for key in self._active:
            sign_json(answer, self.server_name, key)
        return answer
