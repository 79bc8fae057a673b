"""Reading rooms at other homeservers: events, states, auth chains, history.

Server-Server API, "Retrieving events", "Backfilling and retrieving missing events", "Retrieving
event authorisation information". An answer has the form that the specification gives it, and no
more entries than anybody needs, or is a `BadAnswer`. What the PDUs in it are worth is not looked
at here: `federation.client.pdus` checks them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeGuard, TypeVar

import msgspec

from federation.client.errors import BadAnswer
from federation.client.requests import federation_path
from homeserver.core import canonical
from homeserver.core.ids import MAX_ID_BYTES
from homeserver.core.types import JsonObject

MAX_PDUS = 2000
"""PDUs of an answer whose size the asking server chose; honest servers keep far below."""
MAX_STATE = 300_000
"""Events of a state, and of an auth chain."""
MAX_NAMES = 20
"""Event IDs that are asked about in one request."""

_MAX_EVENT_BYTES = 256 * 1024
_MAX_PAGE_BYTES = 20 * 1024 * 1024
_MAX_IDS_BYTES = 40 * 1024 * 1024
_MAX_STATE_BYTES = 100 * 1024 * 1024
_MAX_TIME_BYTES = 64 * 1024
_MAX_TIME = 2**53 - 1

P = ParamSpec("P")
T = TypeVar("T")

_SHORT_S = 10.0
_PAGE_S = 20.0
_STATE_S = 120.0


class JsonClient(Protocol):
    """What is needed of `federation.client.requests.FederationClient`. Raises RemoteError."""

    async def get_json(
        self,
        destination: str,
        path: str,
        *,
        query: Mapping[str, str | list[str]] | None = ...,
        timeout_s: float = ...,
        max_bytes: int = ...,
        read: Callable[[bytes], Any] = ...,
    ) -> JsonObject: ...

    async def post_json(
        self,
        destination: str,
        path: str,
        body: JsonObject,
        *,
        timeout_s: float = ...,
        max_bytes: int = ...,
    ) -> JsonObject: ...


class StateIds(NamedTuple):
    """A state and its auth chain, as event IDs."""

    pdu_ids: tuple[str, ...]
    auth_chain_ids: tuple[str, ...]


class StatePdus(NamedTuple):
    """A state and its auth chain, as PDUs that nobody has checked: JSON values, or their text as
    `msgspec.Raw`."""

    pdus: Sequence[Any]
    auth_chain: Sequence[Any]


class TimedEvent(NamedTuple):
    """An event and the time (milliseconds) that the server said it has."""

    event_id: str
    origin_server_ts: int


def _told(
    method: Callable[Concatenate[EventsClient, P], Awaitable[T]],
) -> Callable[Concatenate[EventsClient, P], Coroutine[Any, Any, T]]:
    @wraps(method)
    async def asking(self: EventsClient, /, *args: P.args, **options: P.kwargs) -> T:
        went_well = False
        try:
            answer = await method(self, *args, **options)
            went_well = True
            return answer
        finally:
            self.told(method.__name__, went_well)

    return asking


class EventsClient:
    """The reading endpoints of other servers.

    Every method raises `RemoteError` in its kinds, `BadAnswer` for an answer of another form than
    the specification's or beyond the limits of this module.

    `told(kind, went_well)` is called after each request, with the name of the method.
    """

    def __init__(
        self, client: JsonClient, told: Callable[[str, bool], object] = lambda kind, well: None
    ) -> None:
        self._client = client
        self.told = told

    @_told
    async def get_event(self, destination: str, event_id: str) -> Any:
        """One PDU (`GET /event/{eventId}`)."""
        answer = await self._client.get_json(
            destination,
            federation_path("/_matrix/federation/v1/event/{}", event_id),
            timeout_s=_SHORT_S,
            max_bytes=_MAX_EVENT_BYTES,
        )
        pdus = _array(destination, answer, "pdus", MAX_PDUS)
        if len(pdus) != 1:
            raise BadAnswer(destination, f"answered with {len(pdus)} events instead of one")
        return pdus[0]

    @_told
    async def get_state_ids(self, destination: str, room_id: str, event_id: str) -> StateIds:
        """The state before an event (`GET /state_ids/{roomId}`)."""
        answer = await self._client.get_json(
            destination,
            federation_path("/_matrix/federation/v1/state_ids/{}", room_id),
            query={"event_id": event_id},
            timeout_s=_STATE_S,
            max_bytes=_MAX_IDS_BYTES,
        )
        return StateIds(
            _ids(destination, answer, "pdu_ids"), _ids(destination, answer, "auth_chain_ids")
        )

    @_told
    async def get_state(self, destination: str, room_id: str, event_id: str) -> StatePdus:
        """The state before an event, with all events (`GET /state/{roomId}`)."""
        answer = await self._client.get_json(
            destination,
            federation_path("/_matrix/federation/v1/state/{}", room_id),
            query={"event_id": event_id},
            timeout_s=_STATE_S,
            max_bytes=_MAX_STATE_BYTES,
            read=_read_state,
        )
        return StatePdus(
            _array(destination, answer, "pdus", MAX_STATE),
            _array(destination, answer, "auth_chain", MAX_STATE),
        )

    @_told
    async def get_event_auth(self, destination: str, room_id: str, event_id: str) -> Sequence[Any]:
        """The whole auth chain of an event (`GET /event_auth/{roomId}/{eventId}`)."""
        answer = await self._client.get_json(
            destination,
            federation_path("/_matrix/federation/v1/event_auth/{}/{}", room_id, event_id),
            timeout_s=_STATE_S,
            max_bytes=_MAX_STATE_BYTES,
        )
        return _array(destination, answer, "auth_chain", MAX_STATE)

    @_told
    async def backfill(
        self, destination: str, room_id: str, event_ids: Sequence[str], limit: int
    ) -> Sequence[Any]:
        """These events and what came before them (`GET /backfill/{roomId}`)."""
        answer = await self._client.get_json(
            destination,
            federation_path("/_matrix/federation/v1/backfill/{}", room_id),
            query={"v": list(event_ids[:MAX_NAMES]), "limit": str(limit)},
            timeout_s=_PAGE_S,
            max_bytes=_MAX_PAGE_BYTES,
        )
        return _array(destination, answer, "pdus", MAX_PDUS)

    @_told
    async def get_missing_events(
        self,
        destination: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int,
    ) -> Sequence[Any]:
        """What came before `latest`, but not before `earliest`
        (`POST /get_missing_events/{roomId}`)."""
        answer = await self._client.post_json(
            destination,
            federation_path("/_matrix/federation/v1/get_missing_events/{}", room_id),
            {
                "earliest_events": list(earliest[:MAX_NAMES]),
                "latest_events": list(latest[:MAX_NAMES]),
                "limit": limit,
                "min_depth": min_depth,
            },
            timeout_s=_PAGE_S,
            max_bytes=_MAX_PAGE_BYTES,
        )
        return _array(destination, answer, "events", MAX_PDUS)

    @_told
    async def timestamp_to_event(
        self, destination: str, room_id: str, ts: int, *, backwards: bool
    ) -> TimedEvent:
        """The event nearest to a time in milliseconds (`GET /timestamp_to_event/{roomId}`)."""
        answer = await self._client.get_json(
            destination,
            federation_path("/_matrix/federation/v1/timestamp_to_event/{}", room_id),
            query={"ts": str(ts), "dir": "b" if backwards else "f"},
            timeout_s=_SHORT_S,
            max_bytes=_MAX_TIME_BYTES,
        )
        event_id, origin_server_ts = answer.get("event_id"), answer.get("origin_server_ts")
        if not _is_id(event_id):
            raise BadAnswer(destination, "answered without an event_id")
        if type(origin_server_ts) is not int or not -_MAX_TIME <= origin_server_ts <= _MAX_TIME:
            raise BadAnswer(destination, "answered without an origin_server_ts")
        return TimedEvent(event_id, origin_server_ts)


class _State(msgspec.Struct, gc=False):
    """An answer with a state, of which the PDUs are left as they came."""

    pdus: list[msgspec.Raw]
    auth_chain: list[msgspec.Raw]


_STATE = msgspec.json.Decoder(_State)


def _read_state(text: bytes) -> Any:
    """Parse the answer, but not the PDUs: they are many, and whoever checks them does it beside.

    Raises `canonical.NotJSON`.
    """
    try:
        found = _STATE.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        # What is wrong with it, the usual way tells.
        return canonical.parse(text)
    return {"pdus": found.pdus, "auth_chain": found.auth_chain}


def _array(destination: str, answer: JsonObject, name: str, limit: int) -> list[Any]:
    value = answer.get(name)
    if not isinstance(value, list):
        raise BadAnswer(destination, f"answered without a list of {name}")
    if len(value) > limit:
        raise BadAnswer(destination, f"answered with {len(value)} {name}, more than {limit}")
    return value


def _ids(destination: str, answer: JsonObject, name: str) -> tuple[str, ...]:
    values = _array(destination, answer, name, MAX_STATE)
    if not all(map(_is_id, values)):
        raise BadAnswer(destination, f"answered with something in {name} that is no event ID")
    return tuple(dict.fromkeys(values))


def _is_id(value: object) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and value.startswith("$")
        and len(value.encode()) <= MAX_ID_BYTES
        and "\0" not in value
    )
