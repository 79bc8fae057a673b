"""Profiles of other servers' users (server-server API, "Querying for information")."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError, RemoteHttpError
from federation.client.queries import QueryCalls
from federation.client.shared import SharedLookups
from homeserver.cache import Cache
from homeserver.core import canonical
from homeserver.core.errors import MatrixError, not_found
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject

KEPT_S = 60.0
"""Seconds for which an answer is remembered, also that there is none."""
MAX_BYTES = 65_536
MAX_FIELD_BYTES = 255

_STRINGS = ("displayname", "avatar_url")
_FAILED = "The server of this user did not tell their profile."


class RemoteProfiles:
    """Asks other servers; for a minute the same question is asked once."""

    def __init__(self, queries: QueryCalls, clock: IReactorTime) -> None:
        self._queries = queries
        self._known: Cache[str, JsonObject | MatrixError] = Cache(
            "remote_profiles", share=0.05, lives_s=KEPT_S, seconds=clock.seconds
        )
        self.caches = (self._known,)
        self._asking: SharedLookups[JsonObject | MatrixError] = SharedLookups()

    async def get(self, user_id: UserID) -> JsonObject:
        """The profile of a user.

        Raises:
            MatrixError: 404 `M_NOT_FOUND` if their server has none, or tells none; 502
                `M_UNKNOWN` if it gives no usable answer.
        """
        found = self._known.get(user_id)
        if found is None:
            found = await self._asking.get(user_id, lambda: self._ask(user_id))
            self._known[user_id] = found
        if isinstance(found, MatrixError):
            raise MatrixError(found.status, found.errcode, found.error)
        return dict(found)

    async def _ask(self, user_id: UserID) -> JsonObject | MatrixError:
        try:
            answer = await self._queries.profile(user_id.domain, user_id)
        except RemoteHttpError as error:
            if error.status in (403, 404):
                return not_found("There is no such user, or their server does not tell.")
            return MatrixError(502, "M_UNKNOWN", _FAILED)
        except RemoteError:
            return MatrixError(502, "M_UNKNOWN", _FAILED)
        profile = {key: value for key, value in answer.items() if _is_field(key, value)}
        try:
            size = len(canonical.encode_lenient(profile))
        except canonical.CanonicalJSONError:
            size = MAX_BYTES + 1
        return profile if size <= MAX_BYTES else MatrixError(502, "M_UNKNOWN", _FAILED)


def _is_field(key: str, value: object) -> bool:
    if value is None or len(key.encode()) > MAX_FIELD_BYTES:
        return False
    return isinstance(value, str) or key not in _STRINGS
