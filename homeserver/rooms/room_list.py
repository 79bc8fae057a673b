"""Lists and details of rooms for administrators."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from homeserver.core import errors
from storage import memberships, published, room_lists, rooms
from storage.database import Database
from storage.room_lists import ListedRoom, Members
from storage.transaction import Transaction

_NAME, _ALIAS = "m.room.name", "m.room.canonical_alias"
_FIELDS: Mapping[str, tuple[str, str]] = {
    "name": (_NAME, "name"),
    "canonical_alias": (_ALIAS, "alias"),
    "encryption": ("m.room.encryption", "algorithm"),
    "join_rules": ("m.room.join_rules", "join_rule"),
    "guest_access": ("m.room.guest_access", "guest_access"),
    "history_visibility": ("m.room.history_visibility", "history_visibility"),
}
"""Fields of a room: the type of the state event, and the key of its content."""
_CREATE = "m.room.create"

DESCENDING = ("size", "joined_members", "joined_local_members", "version", "state_events")
"""Orders in which the largest comes first."""
_SYNONYMS = {"alphabetical": "name", "size": "joined_members"}


class RoomEntry(NamedTuple):
    """A room as lists show it."""

    room_id: str
    name: str | None
    canonical_alias: str | None
    joined_members: int
    joined_local_members: int
    version: str
    creator: str | None
    encryption: str | None
    federatable: bool
    public: bool
    join_rules: str | None
    guest_access: str | None
    history_visibility: str | None
    state_events: int
    room_type: str | None


class RoomDetails(NamedTuple):
    """What is told of a single room."""

    entry: RoomEntry
    topic: str | None
    avatar: str | None
    joined_local_devices: int
    forgotten: bool
    tombstoned: bool
    replacement_room: str | None


class Selection(NamedTuple):
    """Which rooms, in which order; None: whatever they are.

    Parameters: `term` is in the name or in the local part of the canonical alias, or is the room
    ID; `is_empty`, nobody is in the room.
    """

    order_by: str = "name"
    backwards: bool = False
    term: str | None = None
    is_public: bool | None = None
    is_empty: bool | None = None


class RoomList:
    """Finds rooms for administrators."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(
        self, selection: Selection, start: int, limit: int
    ) -> tuple[list[RoomEntry], int]:
        """Some of the selected rooms, and how many there are."""

        def read(txn: Transaction) -> tuple[list[RoomEntry], int]:
            chosen = _chosen(txn, selection)
            return _entries(txn, chosen[start : start + limit]), len(chosen)

        return await self._db.read(read)

    async def details(self, room_id: str) -> RoomDetails:
        """A room. Raises MatrixError 404 `M_NOT_FOUND`."""
        return await self._db.read(_details, room_id)

    async def members(self, room_id: str) -> list[str]:
        """Users who are in a room. Raises MatrixError 404 `M_NOT_FOUND`."""

        def read(txn: Transaction) -> list[str]:
            nid = rooms.nid(txn, room_id)
            if nid is None:
                raise _unknown()
            return [row.user_id for row in memberships.of_room(txn, nid, ["join"])]

        return await self._db.read(read)

    async def largest(self, limit: int) -> list[tuple[str, int]]:
        """IDs and sizes (bytes) of the largest rooms."""
        return await self._db.read(room_lists.largest, limit)


def _unknown() -> errors.MatrixError:
    return errors.not_found("Room not found")


def _text(text: str | None, key: str) -> str | None:
    """A text in the content of an event."""
    found = _content(text).get(key)
    return found if isinstance(found, str) else None


def _content(text: str | None) -> dict[str, Any]:
    content = json.loads(text)["content"] if text is not None else {}
    return content if isinstance(content, dict) else {}


def _creator(create: str | None) -> str | None:
    return json.loads(create)["sender"] if create is not None else None


def _is_federatable(create: str | None) -> bool:
    return _content(create).get("m.federate") is not False


def _chosen(txn: Transaction, selection: Selection) -> list[ListedRoom]:
    """The selected rooms, in order."""
    found = room_lists.known(txn)
    order = _SYNONYMS.get(selection.order_by, selection.order_by)
    if selection.is_public is not None:
        public = room_lists.published(txn)
        found = [room for room in found if (room.room_nid in public) is selection.is_public]
    if selection.is_empty is not None:
        present = room_lists.members(txn)
        found = [room for room in found if (room.room_nid not in present) is selection.is_empty]
    if selection.term is not None:
        found = _matching(txn, found, selection.term)
    key = _key(txn, order)
    is_reversed = (order in DESCENDING) is not selection.backwards
    known = [(room, key(room)) for room in found]
    # What a room does not have comes behind all that others have.
    known.sort(
        key=lambda pair: (pair[1] is None, "" if pair[1] is None else pair[1], pair[0].room_id),
        reverse=is_reversed,
    )
    return [room for room, _ in known]


def _matching(txn: Transaction, found: Sequence[ListedRoom], term: str) -> list[ListedRoom]:
    names = room_lists.state_of_all(txn, _NAME)
    named = room_lists.state_of_all(txn, _ALIAS)
    lower = term.lower()

    def matches(room: ListedRoom) -> bool:
        name = _text(names.get(room.room_nid), "name") or ""
        alias = _text(named.get(room.room_nid), "alias") or ""
        local = alias.partition(":")[0].removeprefix("#")
        return lower in name.lower() or lower in local.lower() or term == room.room_id

    return [room for room in found if matches(room)]


def _key(txn: Transaction, order: str) -> Callable[[ListedRoom], Any]:
    """By what rooms are sorted."""
    if order in _FIELDS:
        event_type, key = _FIELDS[order]
        texts = room_lists.state_of_all(txn, event_type)
        return lambda room: _text(texts.get(room.room_nid), key)
    if order in ("joined_members", "joined_local_members"):
        counts = room_lists.members(txn)
        place = 0 if order == "joined_members" else 1
        return lambda room: counts.get(room.room_nid, Members())[place]
    if order == "state_events":
        numbers = room_lists.state_counts(txn)
        return lambda room: numbers.get(room.room_nid, 0)
    if order == "public":
        public = room_lists.published(txn)
        return lambda room: room.room_nid in public
    if order == "version":
        return lambda room: room.version
    creates = room_lists.state_of_all(txn, _CREATE)
    if order == "creator":
        return lambda room: _creator(creates.get(room.room_nid))
    return lambda room: _is_federatable(creates.get(room.room_nid))


def _entries(txn: Transaction, found: Sequence[ListedRoom]) -> list[RoomEntry]:
    nids = [room.room_nid for room in found]
    types = [_CREATE, *(event_type for event_type, _ in _FIELDS.values())]
    states = room_lists.states(txn, nids, types)
    present, numbers = room_lists.members_of(txn, nids), room_lists.state_counts(txn, nids)
    public = room_lists.published(txn)
    entries = []
    for room in found:
        state, counts = states[room.room_nid], present[room.room_nid]
        texts = {name: _text(state.get(kind), key) for name, (kind, key) in _FIELDS.items()}
        create = state.get(_CREATE)
        entries.append(
            RoomEntry(
                room_id=room.room_id,
                joined_members=counts.joined,
                joined_local_members=counts.local,
                version=room.version,
                creator=_creator(create),
                federatable=_is_federatable(create),
                public=room.room_nid in public,
                state_events=numbers.get(room.room_nid, 0),
                room_type=_text(create, "type"),
                **texts,
            )
        )
    return entries


def _details(txn: Transaction, room_id: str) -> RoomDetails:
    row = rooms.get(txn, room_id)
    if row is None:
        raise _unknown()
    nid = row.room_nid
    (entry,) = _entries(txn, [ListedRoom(nid, row.room_id, row.version)])
    types = ["m.room.topic", "m.room.avatar", "m.room.tombstone"]
    state = room_lists.states(txn, [nid], types)[nid]
    tombstone = state.get("m.room.tombstone")
    return RoomDetails(
        entry._replace(public=published.is_published(txn, nid)),
        _text(state.get("m.room.topic"), "topic"),
        _text(state.get("m.room.avatar"), "url"),
        room_lists.local_devices(txn, nid),
        room_lists.is_forgotten(txn, nid),
        tombstone is not None,
        _text(tombstone, "replacement_room"),
    )
