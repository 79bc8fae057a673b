"""Rooms as other servers describe them.

What they say is taken apart and put together anew: values that are not what the specification
says they are are left out, as are rooms without what every description has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError, Unreachable
from federation.client.queries import QueryCalls, SpaceAnswer
from federation.client.shared import SharedLookups
from homeserver.cache import Cache
from homeserver.core.errors import MatrixError
from homeserver.core.ids import InvalidIdentifier, RoomAlias, RoomID, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.description import RoomDescription
from homeserver.rooms.restricted import MAX_CONDITIONS, room_id_of

SPACE_CHILD = "m.space.child"
MAX_ASKED = 3
"""Servers that are asked for one room."""
MAX_VIA = 10

_MAX_CHILDREN = 1000
_MAX_LISTED = 500
_MAX_TEXT = 4096
_KNOWN_S, _FAILED_S = 300.0, 60.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteSpace:
    """A room, its `m.space.child` events in stripped form, and the rooms that were described
    with it. `inaccessible` are children that this server may not know of."""

    room: RoomDescription
    children_state: Sequence[JsonObject]
    children: Mapping[str, RoomDescription]
    inaccessible: frozenset[str]


@dataclass(frozen=True, slots=True)
class RemoteList:
    """A page of another server's public rooms."""

    rooms: Sequence[RoomDescription]
    next_batch: str | None
    prev_batch: str | None
    total: int


class RemoteRooms:
    """Asks other servers for descriptions of rooms, and remembers them for some minutes."""

    def __init__(self, queries: QueryCalls, clock: IReactorTime, server_name: str) -> None:
        self._queries = queries
        self._server_name = server_name
        self._known: Cache[tuple[str, bool], RemoteSpace] = Cache(
            "remote_rooms", share=0.1, lives_s=_KNOWN_S, seconds=clock.seconds
        )
        self._failed: Cache[tuple[str, str], bool] = Cache(
            "remote_rooms_failed", share=0.02, lives_s=_FAILED_S, seconds=clock.seconds
        )
        self.caches = (self._known, self._failed)
        self._asking: SharedLookups[RemoteSpace | None] = SharedLookups()

    async def listed(self, server: str, wanted: JsonObject) -> RemoteList:
        """A page of a server's public rooms, asked for with the body `wanted`.

        Raises:
            MatrixError: 502 `M_UNKNOWN` if the server does not give its list.
        """
        try:
            answer = await self._queries.public_rooms(server, wanted)
        except RemoteError as error:
            _log.info("no list of rooms", server=server, reason=str(error))
            raise MatrixError(502, "M_UNKNOWN", f"{server} does not show its rooms.") from None
        found = [description_of(room) for room in answer.rooms[:_MAX_LISTED]]
        rooms = [room for room in found if room is not None]
        total = answer.total if answer.total is not None else len(rooms)
        return RemoteList(rooms, answer.next_batch, answer.prev_batch, total)

    async def space(
        self, room_id: str, via: Iterable[str], *, suggested_only: bool = False
    ) -> RemoteSpace | None:
        """A room by the first of a few servers that knows it; None if none does."""
        known = self._known.get((room_id, suggested_only))
        if known is not None:
            return known
        others = [name for name in dict.fromkeys(via) if name != self._server_name][:MAX_ASKED]
        key = " ".join([room_id, str(suggested_only), *others])
        return await self._asking.get(key, lambda: self._ask(room_id, others, suggested_only))

    async def _ask(
        self, room_id: str, servers: Sequence[str], suggested_only: bool
    ) -> RemoteSpace | None:
        for server in servers:
            if (server, room_id) in self._failed or (server, "") in self._failed:
                continue
            try:
                answer = await self._queries.space(server, room_id, suggested_only=suggested_only)
            except RemoteError as error:
                _log.info("no description of a room", room_id=room_id, reason=str(error))
                # A server that does not answer at all is not asked for its other rooms either.
                is_down = isinstance(error, Unreachable)
                self._failed[server, "" if is_down else room_id] = True
                continue
            found = _space(answer)
            if found is not None:
                self._known[room_id, suggested_only] = found
                return found
            self._failed[server, room_id] = True
        return None


def _space(answer: SpaceAnswer) -> RemoteSpace | None:
    room = description_of(answer.room)
    if room is None:
        return None
    events = answer.room.get("children_state")
    listed = events[:_MAX_CHILDREN] if isinstance(events, list) else []
    stripped = [child_event(event) for event in listed]
    found = (description_of(child) for child in answer.children[:_MAX_CHILDREN])
    return RemoteSpace(
        room,
        [event for event in stripped if event is not None],
        {child.room_id: child for child in found if child is not None},
        answer.inaccessible,
    )


def description_of(value: JsonObject) -> RoomDescription | None:
    """A room as another server describes it; None if what is needed is missing."""
    room_id, members = room_id_of(value.get("room_id")), value.get("num_joined_members")
    if room_id is None or type(members) is not int or members < 0:
        return None
    allowed = value.get("allowed_room_ids")
    named = allowed[:MAX_CONDITIONS] if isinstance(allowed, list) else []
    return RoomDescription(
        room_id=room_id,
        room_version=_text(value.get("room_version")),
        num_joined_members=members,
        join_rule=_text(value.get("join_rule")) or "public",
        guest_can_join=value.get("guest_can_join") is True,
        world_readable=value.get("world_readable") is True,
        name=_text(value.get("name")),
        topic=_text(value.get("topic")),
        canonical_alias=_alias(value.get("canonical_alias")),
        avatar_url=_text(value.get("avatar_url")),
        room_type=_text(value.get("room_type")),
        encryption=_text(value.get("encryption")),
        allowed_room_ids=tuple(name for name in map(room_id_of, named) if name is not None),
    )


def child_event(event: object) -> JsonObject | None:
    """The stripped form of an `m.space.child` event that says where a room is, with its
    `origin_server_ts`; None for anything else."""
    if not isinstance(event, dict) or event.get("type") != SPACE_CHILD:
        return None
    content, sent = event.get("content"), event.get("origin_server_ts")
    sender, state_key = event.get("sender"), event.get("state_key")
    if not isinstance(content, dict) or type(sent) is not int or not via_of(content):
        return None
    try:
        RoomID.parse(state_key if isinstance(state_key, str) else "")
        UserID.parse(sender if isinstance(sender, str) else "")
    except InvalidIdentifier:
        return None
    return {
        "type": SPACE_CHILD,
        "state_key": state_key,
        "sender": sender,
        "content": content,
        "origin_server_ts": sent,
    }


def via_of(content: JsonObject) -> list[str]:
    """The servers by which a space's child can be found; a child without any counts as none."""
    via = content.get("via")
    found = []
    for name in via[:MAX_VIA] if isinstance(via, list) else []:
        try:
            found.append(ServerName.parse(name if isinstance(name, str) else ""))
        except InvalidIdentifier:
            continue
    return list(found)


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value and "\0" not in value else None


def _alias(value: object) -> str | None:
    try:
        return RoomAlias.parse(value) if isinstance(value, str) else None
    except InvalidIdentifier:
        return None
