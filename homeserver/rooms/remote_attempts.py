"""Trying several servers of a room, and what to tell the client when none of them helps."""

from __future__ import annotations

from collections.abc import Iterable

from federation.client.errors import RemoteError, RemoteHttpError, Unreachable
from homeserver.core.errors import MatrixError
from homeserver.core.ids import InvalidIdentifier, RoomID, ServerName, domain_of
from storage import memberships, room_servers, rooms
from storage.transaction import Transaction

MAX_CANDIDATES = 30
"""Servers that are tried for one request."""

MAX_REFUSALS = 3
"""Servers that may say no before it is believed: one of them may be wrong, or malicious."""

_TELLING = (
    # The most telling first.
    "M_FORBIDDEN",
    "M_INVITE_BLOCKED",
    "M_INCOMPATIBLE_ROOM_VERSION",
    "M_UNSUPPORTED_ROOM_VERSION",
    "M_UNABLE_TO_AUTHORISE_JOIN",
    "M_UNABLE_TO_GRANT_JOIN",
    "M_RESOURCE_LIMIT_EXCEEDED",
    "M_LIMIT_EXCEEDED",
    "M_TOO_LARGE",
    "M_NOT_FOUND",
)
"""Errors of other servers that clients are told. Others, such as `M_UNKNOWN_TOKEN`, would be
taken for this server's own."""


class Attempts:
    """Remembers what the servers said that were tried."""

    def __init__(self) -> None:
        self._best: RemoteError | None = None
        self._refusals = 0

    def failed(self, error: RemoteError) -> None:
        """Note a failure."""
        if isinstance(error, RemoteHttpError) and error.errcode == "M_FORBIDDEN":
            self._refusals += 1
        if self._best is None or _rank(error) < _rank(self._best):
            self._best = error

    @property
    def is_refused(self) -> bool:
        """Whether enough servers said that the request is forbidden."""
        return self._refusals >= MAX_REFUSALS

    def error(self) -> MatrixError:
        """What the client is told when nothing worked."""
        if self._best is None:
            return MatrixError(404, "M_NOT_FOUND", "No server is known that is in this room.")
        return client_error(self._best)


def client_error(error: RemoteError) -> MatrixError:
    """What a client is told of another server's failure: its own words where they are telling."""
    if isinstance(error, RemoteHttpError) and error.errcode in _TELLING:
        told = (error.error or "The other server refused.")[:500]
        problem = MatrixError(_status(error), error.errcode, told)
        version = error.body.get("room_version")
        if error.errcode == "M_INCOMPATIBLE_ROOM_VERSION" and isinstance(version, str):
            problem.extra["room_version"] = version
        if error.errcode == "M_LIMIT_EXCEEDED" and error.retry_after_ms is not None:
            problem.extra["retry_after_ms"] = error.retry_after_ms
        return problem
    return MatrixError(502, "M_UNKNOWN", f"Another server did not help: {error}"[:500])


def candidates(
    txn: Transaction, room_id: str, user_id: str, via: Iterable[str], own_name: str
) -> list[str]:
    """Servers to ask about a room, the likeliest first.

    Parameters: `via`, servers that the client or a room alias names.
    """
    named = list(via)
    room_nid = rooms.nid(txn, room_id)
    if room_nid is not None:
        member = memberships.get(txn, room_nid, user_id)
        if member is not None and member.membership == "invite":
            named.append(domain_of(member.sender))
    legacy = RoomID(room_id).legacy_domain
    if legacy is not None:
        named.append(legacy)
    if room_nid is not None:
        named += room_servers.of_room(txn, room_nid)[:MAX_CANDIDATES]
    return usable(named, own_name)


def usable(named: Iterable[str], own_name: str) -> list[str]:
    """Those of the names that can be asked, each once."""
    found: dict[str, None] = {}
    for name in named:
        try:
            if name != own_name:
                found[ServerName.parse(name)] = None
        except InvalidIdentifier:
            continue
        if len(found) == MAX_CANDIDATES:
            break
    return list(found)


def _rank(error: RemoteError) -> int:
    if isinstance(error, RemoteHttpError) and error.errcode in _TELLING:
        return _TELLING.index(error.errcode)
    return len(_TELLING) + isinstance(error, Unreachable)


def _status(error: RemoteHttpError) -> int:
    return error.status if error.status in (400, 403, 404, 413, 429) else 502
