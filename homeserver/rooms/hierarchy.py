"""What is in spaces, room by room (client-server and server-server API, "Spaces").

A client pages through the tree in depth-first order. A page is found again by the number of rooms
before it, so that any process can give it out: the walk starts anew, over rooms of which those of
other servers are remembered for some minutes (`homeserver.rooms.remote_rooms`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.ids import RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.description import RoomDescription
from homeserver.rooms.remote_rooms import RemoteRooms, RemoteSpace, via_of
from homeserver.rooms.spaces import SPACE, LocalSpace, local_space, open_to_server, shown_children
from homeserver.rooms.summary import accessible
from storage import memberships, rooms
from storage.database import Database
from storage.transaction import Transaction

MAX_PAGE = 50
"""Rooms in one answer, also if the client says nothing."""
MAX_DEPTH = 10
MAX_ROOMS = 2000
"""Rooms of one space that clients can page through."""
MAX_SERVED_CHILDREN = 100
"""Rooms of one space that another server is told of."""
REMOTE_S = 20.0
"""Seconds for which other servers are asked for one page; then their rooms are left out."""

_MAX_STEPS = 5000
_MAX_CHILDREN = 1000
_TOKEN = re.compile(r"h([0-9]{1,4})-([0-9]{1,2})-([01])")


@dataclass(frozen=True, slots=True)
class SpaceRoom:
    """A room of a space, with its `m.space.child` events in stripped form."""

    room: RoomDescription
    children_state: Sequence[JsonObject]


@dataclass(frozen=True, slots=True)
class HierarchyPage:
    """An answer; `next_batch` is None where the tree ends."""

    rooms: Sequence[SpaceRoom]
    next_batch: str | None


@dataclass(frozen=True, slots=True)
class ServedSpace:
    """What another server is told of a room and the rooms in it."""

    room: SpaceRoom
    children: Sequence[RoomDescription]
    inaccessible: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Step:
    """A room of the walk. `told` is its description by the space above, if that is another
    server's."""

    room_id: str
    via: Sequence[str]
    depth: int
    told: RoomDescription | None = None


class SpaceHierarchy:
    """Walks through spaces."""

    def __init__(self, db: Database, remote: RemoteRooms, clock: IReactorTime) -> None:
        self._db = db
        self._remote = remote
        self._clock = clock

    async def page(
        self,
        reader_id: str,
        room_id: RoomID,
        *,
        suggested_only: bool = False,
        limit: int | None = None,
        max_depth: int | None = None,
        token: str | None = None,
        everything_here: bool = False,
    ) -> HierarchyPage:
        """Rooms of a space that the reader may know of, the space first.

        Parameters: `everything_here`, instead, all rooms that this server knows, and no others.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM` for a bad token, or one for other parameters; 403
                `M_FORBIDDEN` if the reader may not know of the space.
        """
        depth = MAX_DEPTH if max_depth is None else min(max_depth, MAX_DEPTH)
        skip = _parse(token, depth, suggested_only) if token is not None else 0
        size = MAX_PAGE if limit is None else min(limit, MAX_PAGE)
        walk = _Walk(self._db, self._remote, self._clock, reader_id, suggested_only, depth)
        walk.everything_here = everything_here
        legacy = room_id.legacy_domain
        found = await walk.rooms(room_id, [legacy] if legacy is not None else [], skip + size + 1)
        if not found:
            raise errors.forbidden("There is no such room, or it is not open to you.")
        end = skip + size
        more = len(found) > end and end < MAX_ROOMS
        next_batch = f"h{end}-{depth}-{int(suggested_only)}" if more else None
        return HierarchyPage(found[skip:end], next_batch)

    async def serve(self, server: str, room_id: str, *, suggested_only: bool) -> ServedSpace:
        """A room and those of its children that another server may know of.

        Raises:
            MatrixError: 404 `M_NOT_FOUND` for a room that is not known here, or not to be known
                of by that server.
        """
        return await self._db.read(_serve, server, room_id, suggested_only)


def _parse(token: str, depth: int, suggested_only: bool) -> int:
    found = _TOKEN.fullmatch(token)
    if found is None or int(found[1]) > MAX_ROOMS:
        raise errors.invalid_param("`from` is no token of a hierarchy.")
    if (int(found[2]), found[3] == "1") != (depth, suggested_only):
        raise errors.invalid_param("`max_depth` and `suggested_only` must stay as they were.")
    return int(found[1])


class _Walk:
    """One walk through one tree, for one reader."""

    def __init__(
        self,
        db: Database,
        remote: RemoteRooms,
        clock: IReactorTime,
        reader_id: str,
        suggested_only: bool,
        max_depth: int,
    ) -> None:
        self._db = db
        self._remote = remote
        self._clock = clock
        self._until = clock.seconds() + REMOTE_S
        self._reader_id = reader_id
        self._suggested_only = suggested_only
        self._max_depth = max_depth
        self._inaccessible: set[str] = set()
        self.everything_here = False

    async def rooms(self, room_id: str, via: Sequence[str], count: int) -> list[SpaceRoom]:
        """The first rooms of the tree; none if the reader may not know of its root."""
        waiting = [_Step(room_id, via, 0)]
        seen: set[str] = set()
        found: list[SpaceRoom] = []
        while waiting and len(found) < count and len(seen) < _MAX_STEPS:
            step = waiting.pop()
            if step.room_id in seen:
                continue  # in two spaces, or a loop
            seen.add(step.room_id)
            entry, told = await self._look(step)
            if entry is None:
                continue
            found.append(entry)
            if step.depth < self._max_depth:
                steps = [
                    _Step(
                        event["state_key"],
                        via_of(event["content"]),
                        step.depth + 1,
                        told.get(event["state_key"]),
                    )
                    for event in entry.children_state[:_MAX_CHILDREN]
                    if event["state_key"] not in seen
                ]
                waiting += reversed(steps)
        return found

    async def _look(self, step: _Step) -> tuple[SpaceRoom | None, dict[str, RoomDescription]]:
        """A room if the reader may know of it, and what it tells of others."""
        local, is_open = await self._db.read(self._local, step.room_id)
        if self.everything_here or (local is not None and local.is_fresh):
            if local is None:
                return None, {}
            return (SpaceRoom(local.room, local.children_state) if is_open else None), {}
        remote = await self._ask(step)
        if remote is None:
            if local is None or not is_open:
                return None, {}
            return SpaceRoom(local.room, local.children_state), {}
        if not await self._db.read(_knows_of, remote.room, self._reader_id):
            return None, {}
        self._inaccessible |= remote.inaccessible
        children = shown_children(remote.children_state, self._suggested_only)
        if remote.room.room_type != SPACE:
            children = []
        return SpaceRoom(remote.room, children), dict(remote.children)

    async def _ask(self, step: _Step) -> RemoteSpace | None:
        told = step.told
        if told is not None and told.room_type != SPACE:
            return RemoteSpace(told, (), {}, frozenset())
        if step.room_id in self._inaccessible or self._clock.seconds() > self._until:
            return None
        return await self._remote.space(step.room_id, step.via, suggested_only=self._suggested_only)

    def _local(self, txn: Transaction, room_id: str) -> tuple[LocalSpace | None, bool]:
        found = local_space(txn, room_id, suggested_only=self._suggested_only)
        if found is None or self.everything_here:
            return found, found is not None
        return found, _knows_of(txn, found.room, self._reader_id)


def _knows_of(txn: Transaction, room: RoomDescription, reader_id: str) -> bool:
    room_nid = rooms.nid(txn, room.room_id)
    row = memberships.get(txn, room_nid, reader_id) if room_nid is not None else None
    return accessible(txn, room, reader_id, row.membership if row is not None else None)


def _serve(txn: Transaction, server: str, room_id: str, suggested_only: bool) -> ServedSpace:
    found = local_space(txn, room_id, suggested_only=suggested_only)
    if found is None or not open_to_server(txn, found, server):
        raise errors.not_found("There is no such room, or it is not open to your server.")
    children, inaccessible = [], []
    for event in found.children_state[:MAX_SERVED_CHILDREN]:
        child = local_space(txn, event["state_key"], suggested_only=False)
        if child is None or not child.is_fresh:
            continue
        if open_to_server(txn, child, server):
            children.append(child.room)
        else:
            inaccessible.append(child.room.room_id)
    return ServedSpace(SpaceRoom(found.room, found.children_state), children, inaccessible)
