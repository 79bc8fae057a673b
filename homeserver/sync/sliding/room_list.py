"""The user's rooms as lists have them: which there are, in which order, and what filters let
through (MSC4186, "Lists").

1. In the list are rooms that the user is in, is invited to or knocks on, and those from which
   others removed them. A room that they left themselves is there until the connection knows.
2. The room in which something was said last comes first, by the same stamp that clients get.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from homeserver.cache import Cache
from homeserver.core.types import JsonObject
from homeserver.rooms.invite_blocking import Invites
from homeserver.sync.request import Snapshot
from homeserver.sync.sliding.request import RoomConfig, RoomFilters, RoomList, SlidingRequest
from storage import account_data, memberships, windows
from storage.memberships import MembershipRow
from storage.windows import ListedRoom

_NO_FILTERS = RoomFilters()
GONE = ("leave", "ban")
PENDING = ("invite", "knock")
_CREATE, _NAME = ("m.room.create", ""), ("m.room.name", "")


def stamp(room: ListedRoom) -> int:
    """What orders rooms; newer is more."""
    if room.membership == "join" and room.bumped is not None and room.bumped > 0:
        return room.bumped
    return room.member_pos


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rooms that a request is about, by number."""

    rooms: Mapping[int, ListedRoom]
    """All of the user's."""
    configs: Mapping[int, RoomConfig]
    """What to send of those in windows and subscribed to."""
    counts: Mapping[str, int]
    """How many rooms each list has."""
    lists: Mapping[int, list[str]]
    """In the windows of which lists a room is."""
    subscribed: Collection[int]
    direct: Collection[str]
    """IDs of rooms that are direct chats."""
    loose: Collection[int] = ()
    """Rooms in lists that are in no window of these which begins at the top."""
    matched: Collection[int] = ()
    """Rooms in lists, whether in a window or not, and those subscribed to; only for extensions
    that ask for them."""


class _Unknown:
    """Of what is not remembered."""


_UNKNOWN = _Unknown()


class RoomTypes:
    """Remembers the types of rooms, which never change; used in database threads."""

    def __init__(self) -> None:
        self._cache: Cache[int, str | None] = Cache("room_types", share=0.05)
        self.caches = (self._cache,)

    def of(self, snapshot: Snapshot, room_nids: Collection[int]) -> dict[int, str | None]:
        """The types of rooms that the user is or was in."""
        known = {nid: self._cache.get(nid, _UNKNOWN) for nid in room_nids}
        found = {nid: kind for nid, kind in known.items() if not isinstance(kind, _Unknown)}
        missing = [nid for nid in room_nids if nid not in found]
        if missing:
            rows = windows.current_state(snapshot.txn, missing, [_CREATE], ())
            read = {nid: _type(json.loads(row[_CREATE].json)) for nid, row in rows.items()}
            self._cache.update(read)
            found |= read
        return found


def _type(create: Any) -> str | None:
    content = create.get("content") if isinstance(create, dict) else None
    found = content.get("type") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def choose(
    snapshot: Snapshot, request: SlidingRequest, known: Collection[int], types: RoomTypes
) -> Chosen:
    """The rooms that a request is about. `known`: rooms that the connection was sent."""
    if not (request.lists or request.subscriptions or known):
        # A connection for extensions only.
        return Chosen({}, {}, {}, {}, (), ())
    rooms = _visible(snapshot, known)
    spaces = {name for one in request.lists.values() for name in one.filters.spaces or ()}
    facts = _Facts(snapshot, rooms, types, spaces)
    order = sorted(rooms.values(), key=lambda room: (stamp(room), room.room_nid), reverse=True)
    configs: dict[int, RoomConfig] = {}
    lists: dict[int, list[str]] = {}
    counts: dict[str, int] = {}
    filtered: dict[RoomFilters, list[ListedRoom]] = {}
    matched: set[int] = set()
    loose: set[int] = set()
    for name, wanted in request.lists.items():
        found = filtered.get(wanted.filters)
        if found is None:
            found = filtered[wanted.filters] = facts.filtered(order, wanted.filters)
            if request.extensions.sticky is not None:
                matched.update(room.room_nid for room in found)
        counts[name] = len(found)
        loose.update(room.room_nid for room in found[_top(wanted, len(found)) :])
        for nid in _window(found, wanted):
            lists.setdefault(nid, []).append(name)
            old = configs.get(nid)
            configs[nid] = wanted.config if old is None else old | wanted.config
    subscribed = set()
    if request.subscriptions:
        for nid, room in rooms.items():
            config = request.subscriptions.get(room.room_id)
            if config is not None:
                subscribed.add(nid)
                configs[nid] = configs[nid] | config if nid in configs else config
    return Chosen(
        rooms, configs, counts, lists, subscribed, facts.direct, loose, matched | subscribed
    )


def _top(wanted: RoomList, count: int) -> int:
    """How many rooms the windows of a list of so many have from the top on without a gap."""
    if wanted.ranges is None:
        return count
    top = 0
    for first, last in sorted(wanted.ranges):
        if first <= top:
            top = max(top, last + 1)
    return top


def _window(found: list[ListedRoom], wanted: RoomList) -> dict[int, None]:
    if wanted.ranges is None:
        return {room.room_nid: None for room in found}
    chosen: dict[int, None] = {}
    for first, last in wanted.ranges:
        for room in found[first : last + 1]:
            chosen[room.room_nid] = None
    return chosen


def _visible(snapshot: Snapshot, known: Collection[int]) -> dict[int, ListedRoom]:
    """The user's rooms, with those that the connection knows though they are not in the list."""
    txn, user_id = snapshot.txn, snapshot.request.user_id
    found = windows.rooms_of(txn, user_id)
    found |= windows.rooms_among(txn, user_id, [nid for nid in known if nid not in found])
    has_invites = any(room.membership == "invite" for room in found.values())
    invites = Invites(txn, user_id) if has_invites else None

    def is_unwanted(inviter: str) -> bool:
        return inviter in snapshot.ignored or (invites is not None and invites.hides(inviter))

    return {
        nid: room
        for nid, room in found.items()
        if _is_shown(room, nid in known, room.membership == "invite" and is_unwanted(room.sender))
    }


def _is_shown(room: ListedRoom, is_known: bool, is_unwanted: bool) -> bool:
    if room.membership == "invite":
        return not is_unwanted
    if room.membership in GONE:
        return is_known or (room.was_joined and not room.forgotten)
    return True


class _Facts:
    """What filters ask about the user's rooms, each read when the first one asks."""

    def __init__(
        self,
        snapshot: Snapshot,
        rooms: Mapping[int, ListedRoom],
        types: RoomTypes,
        spaces: Collection[str],
    ) -> None:
        self._snapshot = snapshot
        self._rooms = rooms
        self._room_types = types
        self._spaces = spaces

    def filtered(self, order: list[ListedRoom], wanted: RoomFilters) -> list[ListedRoom]:
        """Those of the rooms that filters let through."""
        if wanted == _NO_FILTERS:
            return order
        return [room for room in order if self._passes(room, wanted)]

    def _passes(self, room: ListedRoom, wanted: RoomFilters) -> bool:
        nid, room_id = room.room_nid, room.room_id
        if wanted.is_invite not in (None, room.membership == "invite"):
            return False
        if wanted.is_dm is not None and wanted.is_dm != (room_id in self.direct):
            return False
        if wanted.is_encrypted is not None and wanted.is_encrypted != (nid in self._encrypted):
            return False
        if wanted.room_types is not None or wanted.not_room_types:
            room_type = self._types.get(nid)
            if room_type in wanted.not_room_types:
                return False
            if wanted.room_types is not None and room_type not in wanted.room_types:
                return False
        if wanted.tags is not None or wanted.not_tags:
            tags = self._tags.get(room_id, frozenset())
            if tags & wanted.not_tags or (wanted.tags is not None and not tags & wanted.tags):
                return False
        like = wanted.room_name_like
        if like is not None and like.casefold() not in self._names.get(nid, "").casefold():
            return False
        return wanted.spaces is None or any(
            room_id in self._children.get(space, ()) for space in wanted.spaces
        )

    @cached_property
    def direct(self) -> frozenset[str]:
        """IDs of the rooms in `m.direct`."""
        snapshot = self._snapshot
        content = account_data.get(
            snapshot.txn, snapshot.request.user_id, account_data.GLOBAL, "m.direct"
        )
        lists = [part for part in (content or {}).values() if isinstance(part, list)]
        return frozenset(name for part in lists for name in part if isinstance(name, str))

    @cached_property
    def _tags(self) -> dict[str, frozenset[str]]:
        return windows.tags(self._snapshot.txn, self._snapshot.request.user_id)

    @cached_property
    def _pending(self) -> dict[int, list[JsonObject]]:
        """The stripped state of rooms that the user is not in yet."""
        nids = [nid for nid, room in self._rooms.items() if room.membership in PENDING]
        if not nids:
            return {}
        rows = memberships.of_user_in(self._snapshot.txn, self._snapshot.request.user_id, nids)
        return {row.room_nid: stripped(row) for row in rows}

    def _stripped(self, event_type: str) -> dict[int, JsonObject]:
        found = {}
        for nid, events in self._pending.items():
            for event in events:
                if event.get("type") == event_type and event.get("state_key") == "":
                    found[nid] = event
        return found

    @cached_property
    def _entered(self) -> list[int]:
        return [nid for nid, room in self._rooms.items() if room.membership not in PENDING]

    @cached_property
    def _encrypted(self) -> set[int]:
        kind = "m.room.encryption"
        found = windows.rooms_with_state(self._snapshot.txn, self._entered, kind)
        return found | self._stripped(kind).keys()

    @cached_property
    def _types(self) -> dict[int, str | None]:
        found = self._room_types.of(self._snapshot, self._entered)
        return found | {nid: _type(event) for nid, event in self._stripped(_CREATE[0]).items()}

    @cached_property
    def _names(self) -> dict[int, str]:
        rows = windows.current_state(self._snapshot.txn, self._entered, [_NAME], ())
        events = {nid: json.loads(row[_NAME].json) for nid, row in rows.items()}
        names = {}
        for nid, event in (events | self._stripped(_NAME[0])).items():
            content = event.get("content")
            name = content.get("name") if isinstance(content, dict) else None
            if isinstance(name, str):
                names[nid] = name
        return names

    @cached_property
    def _children(self) -> dict[str, set[str]]:
        """IDs of the rooms in each space that the user is in."""
        spaces = [
            nid
            for nid, room in self._rooms.items()
            if room.membership == "join" and room.room_id in self._spaces
        ]
        rows = windows.current_state(self._snapshot.txn, spaces, (), ["m.space.child"])
        children: dict[str, set[str]] = {}
        for nid, entries in rows.items():
            for (_, child), row in entries.items():
                content = json.loads(row.json).get("content")
                via = content.get("via") if isinstance(content, dict) else None
                if isinstance(via, list) and via:
                    children.setdefault(self._rooms[nid].room_id, set()).add(child)
        return children


_STRIPPED = {"type", "state_key", "sender", "content"}


def stripped(member: MembershipRow) -> list[JsonObject]:
    """The stripped state of an invite or a knock."""
    found = json.loads(member.stripped_state or "[]")
    return [event for event in found if isinstance(event, dict) and event.keys() >= _STRIPPED]
