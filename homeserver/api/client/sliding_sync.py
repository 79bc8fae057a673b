"""Simplified sliding sync (MSC4186), as Element X and the Rust SDK use it.

The forms are those of `org.matrix.simplified_msc3575`, under which clients look for it: `ranges`,
`required_state` as pairs, `pos` and `timeout` in the query (or in the body, as the proposal has
it now).
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Annotated, Literal

import msgspec

from homeserver.core.errors import MatrixError, invalid_param, unknown_pos
from homeserver.core.tokens import MAX_POSITION, SlidingToken
from homeserver.core.types import JsonObject
from homeserver.sync.long_poll import Wish
from homeserver.sync.sliding.extensions import PROFILES, STICKY, THREADS
from homeserver.sync.sliding.long_poll import SlidingSync
from homeserver.sync.sliding.request import (
    Extensions,
    ProfilesExtension,
    RoomConfig,
    RoomExtension,
    RoomFilters,
    RoomList,
    SlidingRequest,
    StickyExtension,
    ToDeviceExtension,
)
from homeserver.sync.sliding.required_state import RequiredState
from homeserver.web.endpoint import Auth, RawJson, Request, Requester, endpoint

MAX_LISTS = 100
MAX_RANGES = 100
"""Of one list."""
MAX_SUBSCRIPTIONS = 1000
MAX_REQUIRED_STATE = 200
"""Pairs for one list or subscription."""
MAX_DISTINCT = 2000
"""Pairs of all lists and subscriptions of a request that differ."""
MAX_TIMELINE = 100
"""Events of one room; who asks for more gets this many."""
MAX_FILTER_VALUES = 200
MAX_NAME = 255
"""Characters of a connection's or a list's name, and of what a filter looks for."""
DEFAULT_MESSAGES, MAX_MESSAGES = 100, 500
DEFAULT_THREADS, MAX_THREADS = 100, 500
DEFAULT_STICKY, MAX_STICKY = 100, 500

_EVERYTHING = "*"
Count = Annotated[int, msgspec.Meta(ge=0)]


class ConfigBody(msgspec.Struct, frozen=True):
    timeline_limit: Count = 0
    required_state: list[tuple[str, str]] = []


class FiltersBody(msgspec.Struct, frozen=True):
    is_dm: bool | None = None
    spaces: list[str] | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    is_invited: bool | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] | None = None
    room_name_like: str | None = None
    tags: list[str] | None = None
    not_tags: list[str] | None = None


class ListBody(ConfigBody, frozen=True):
    ranges: list[tuple[Count, Count]] | None = None
    range: tuple[Count, Count] | None = None
    filters: FiltersBody | None = None


class EnabledBody(msgspec.Struct, frozen=True):
    enabled: bool | None = False


class ToDeviceBody(EnabledBody, frozen=True):
    since: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class ThreadsBody(EnabledBody, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class StickyBody(EnabledBody, frozen=True):
    since: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class RoomsBody(EnabledBody, frozen=True):
    lists: list[str] | None = None
    rooms: list[str] | None = None


class ProfilesBody(RoomsBody, frozen=True):
    fields: list[str] | None = None


class ExtensionsBody(msgspec.Struct, frozen=True):
    to_device: ToDeviceBody | None = None
    e2ee: EnabledBody | None = None
    account_data: RoomsBody | None = None
    receipts: RoomsBody | None = None
    typing: RoomsBody | None = None
    thread_subscriptions: ThreadsBody | None = msgspec.field(default=None, name=THREADS)
    sticky_events: StickyBody | None = msgspec.field(default=None, name=STICKY)
    profiles: ProfilesBody | None = msgspec.field(default=None, name=PROFILES)


class SlidingBody(msgspec.Struct, frozen=True):
    conn_id: str | None = None
    pos: str | None = None
    timeout: Count | None = None
    set_presence: str | None = None
    lists: dict[str, ListBody] | None = None
    room_subscriptions: dict[str, ConfigBody] | None = None
    extensions: ExtensionsBody | None = None


class SlidingQuery(msgspec.Struct, frozen=True):
    """`timeout` in milliseconds."""

    pos: str | None = None
    timeout: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    set_presence: Literal["offline", "online", "unavailable"] | None = None


@endpoint(
    "POST",
    "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
    auth=Auth.GUEST_OK,
    long_poll=True,
)
async def post_sliding_sync(
    requester: Requester,
    query: SlidingQuery,
    body: SlidingBody,
    request: Request,
    sync: SlidingSync,
) -> JsonObject | RawJson:
    """What is in the windows of the client's lists, and what happened since a position."""
    wanted = parse(requester, body, query.pos or body.pos)
    timeout = query.timeout if query.timeout is not None else body.timeout
    presence = query.set_presence or body.set_presence or "online"
    if presence not in ("offline", "online", "unavailable"):
        raise invalid_param("`set_presence` is none of offline, online and unavailable.")
    wish = Wish(timeout or 0, presence, request.on_shutdown)  # type: ignore[arg-type]
    request.settle()
    del query, body  # they would be kept while it waits
    # A `txn_id` is not answered: clients would take it that what they asked for holds for the
    # requests to come, as in MSC3575, and leave it out of those.
    answer = await sync.sync(wanted, wish)
    return RawJson(answer) if isinstance(answer, bytes) else answer


def parse(requester: Requester, body: SlidingBody, pos: str | None) -> SlidingRequest:
    """The request of a body.

    Raises:
        MatrixError: 400 `M_INVALID_PARAM` for what is out of bounds, `M_UNKNOWN_POS`.
    """
    conn_id = body.conn_id or ""
    _check_length("conn_id", conn_id)
    lists, subscriptions = body.lists or {}, body.room_subscriptions or {}
    _check_size("lists", lists, MAX_LISTS)
    _check_size("room_subscriptions", subscriptions, MAX_SUBSCRIPTIONS)
    _check_states([*lists.items(), *subscriptions.items()])
    user_id = requester.user_id
    return SlidingRequest(
        user_id=user_id,
        device_id=requester.device_id or "",
        conn_id=conn_id,
        pos=_position(pos) if pos else None,
        lists={name: _list(name, wanted, user_id) for name, wanted in lists.items()},
        subscriptions={name: _config(wanted, user_id) for name, wanted in subscriptions.items()},
        extensions=_extensions(body.extensions or ExtensionsBody()),
    )


def _position(text: str) -> SlidingToken:
    try:
        return SlidingToken.parse(text)
    except MatrixError:
        # A client that comes with something else, say of another server, has to begin anew.
        raise unknown_pos() from None


def _list(name: str, wanted: ListBody, user_id: str) -> RoomList:
    _check_length("lists", name)
    ranges = wanted.ranges
    if ranges is None and wanted.range is not None:
        ranges = [wanted.range]
    for first, last in ranges or ():
        if first > last:
            raise invalid_param(f"A range of the list {name} ends before it begins.")
    _check_size("ranges", ranges or (), MAX_RANGES)
    return RoomList(
        _config(wanted, user_id),
        _filters(wanted.filters or FiltersBody()),
        None if ranges is None else tuple(ranges),
    )


def _config(wanted: ConfigBody, user_id: str) -> RoomConfig:
    limit = min(wanted.timeline_limit, MAX_TIMELINE)
    return RoomConfig(limit, RequiredState.of(wanted.required_state, user_id))


def _check_states(wanted: Sequence[tuple[str, ConfigBody]]) -> None:
    distinct: set[tuple[str, str]] = set()
    for name, config in wanted:
        _check_size(
            f"required_state of {name[:MAX_NAME]}", config.required_state, MAX_REQUIRED_STATE
        )
        distinct.update(config.required_state)
        if len(distinct) > MAX_DISTINCT:
            raise invalid_param(f"`required_state` has more than {MAX_DISTINCT} different pairs.")
    for pair in distinct:
        for part in pair:
            _check_length("required_state", part)


def _filters(wanted: FiltersBody) -> RoomFilters:
    for name in ("spaces", "room_types", "not_room_types", "tags", "not_tags"):
        values = getattr(wanted, name) or ()
        _check_size(name, values, MAX_FILTER_VALUES)
        for value in values:
            _check_length(name, value or "")
    _check_length("room_name_like", wanted.room_name_like or "")
    return RoomFilters(
        is_dm=wanted.is_dm,
        spaces=None if wanted.spaces is None else frozenset(wanted.spaces),
        is_encrypted=wanted.is_encrypted,
        is_invite=wanted.is_invite if wanted.is_invite is not None else wanted.is_invited,
        room_types=None if wanted.room_types is None else frozenset(wanted.room_types),
        not_room_types=frozenset(wanted.not_room_types or ()),
        room_name_like=wanted.room_name_like,
        tags=None if wanted.tags is None else frozenset(wanted.tags),
        not_tags=frozenset(wanted.not_tags or ()),
    )


def _extensions(wanted: ExtensionsBody) -> Extensions:
    to_device = None
    if wanted.to_device is not None and wanted.to_device.enabled:
        limit = wanted.to_device.limit or DEFAULT_MESSAGES
        since = wanted.to_device.since
        to_device = ToDeviceExtension(
            _own_since("to_device", since) if since else None, min(limit, MAX_MESSAGES)
        )
    return Extensions(
        to_device=to_device,
        e2ee=wanted.e2ee is not None and bool(wanted.e2ee.enabled),
        account_data=_rooms(wanted.account_data),
        receipts=_rooms(wanted.receipts),
        typing=_rooms(wanted.typing),
        thread_subscriptions=_threads(wanted.thread_subscriptions),
        sticky=_sticky(wanted.sticky_events),
        profiles=_profiles(wanted.profiles),
    )


def _threads(wanted: ThreadsBody | None) -> int | None:
    if wanted is None or not wanted.enabled:
        return None
    return min(wanted.limit or DEFAULT_THREADS, MAX_THREADS)


def _sticky(wanted: StickyBody | None) -> StickyExtension | None:
    if wanted is None or not wanted.enabled:
        return None
    since = _own_since("sticky_events", wanted.since) if wanted.since else None
    return StickyExtension(since, min(wanted.limit or DEFAULT_STICKY, MAX_STICKY))


def _profiles(wanted: ProfilesBody | None) -> ProfilesExtension | None:
    rooms = _rooms(wanted)
    if wanted is None or rooms is None:
        return None
    _check_size("fields", wanted.fields or (), MAX_FILTER_VALUES)
    for name in wanted.fields or ():
        _check_length("fields", name)
    return ProfilesExtension(rooms, None if wanted.fields is None else frozenset(wanted.fields))


def _own_since(name: str, text: str) -> int:
    """The position of an extension that has its own."""
    if text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_POSITION:
        return int(text)
    raise invalid_param(f"`since` of `{name}` is none of this server.")


def _rooms(wanted: RoomsBody | None) -> RoomExtension | None:
    if wanted is None or not wanted.enabled:
        return None
    parts: list[frozenset[str] | None] = []
    for name, values in (("lists", wanted.lists), ("rooms", wanted.rooms)):
        _check_size(name, values or (), MAX_SUBSCRIPTIONS)
        for value in values or ():
            _check_length(name, value)
        is_all = values is None or _EVERYTHING in values
        parts.append(None if is_all else frozenset(values or ()))
    return RoomExtension(*parts)


def _check_length(name: str, text: str) -> None:
    if len(text) > MAX_NAME:
        raise invalid_param(f"`{name}` has a text of more than {MAX_NAME} characters.")


def _check_size(name: str, values: Sized, most: int) -> None:
    if len(values) > most:
        raise invalid_param(f"`{name}` has more than {most} entries.")


ENDPOINTS = [post_sliding_sync]
