"""Which events the events of a state name as their auth events, by numbers, in memory.

State resolution asks this of all that is in a room's state, where branches differ in what
they were allowed by. It never changes, and needs none of the rest of the events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol, cast

import msgspec

from homeserver.cache import Cache
from storage import auth_packs
from storage.transaction import Transaction

_PART = 2000
_MANY = 500
"""So many events are not read before looking into `auth_packs`, and what they say is put there."""


class AtHand(Protocol):
    """An event that somebody has read."""

    @property
    def event_id(self) -> str: ...
    @property
    def auth_event_ids(self) -> tuple[str, ...]: ...


class _Stored(msgspec.Struct):
    """What is read of a stored event. In room versions 1 and 2 entries are pairs with hashes."""

    auth_events: list[str | tuple[str, msgspec.Raw]] = []


_DECODER = msgspec.json.Decoder(_Stored)


class AuthIndex:
    """Auth events by the numbers of events; see the module.

    One for each homeserver; used in database threads.
    """

    def __init__(self) -> None:
        # By room; what is kept for one is never changed, but replaced by more.
        self._rooms: Cache[int, Mapping[int, tuple[int, ...]]] = Cache("auth_index", _size)
        self.caches = (self._rooms,)

    def of_room(
        self,
        txn: Transaction,
        room_nid: int,
        at_hand: Callable[[int], AtHand | None] = lambda number: None,
    ) -> RoomEdges:
        """The auth events of a room's events, as one transaction sees them.

        Parameters: `at_hand` gives what is to be read of a stored event, by its number, if the
        caller has read it already.
        """
        return RoomEdges(txn, room_nid, self._rooms, at_hand)


class RoomEdges:
    """Numbers of the auth events of a room's events, as far as they are stored in the room."""

    def __init__(
        self,
        txn: Transaction,
        room_nid: int,
        rooms: Cache[int, Mapping[int, tuple[int, ...]]],
        at_hand: Callable[[int], AtHand | None],
    ) -> None:
        """Use `AuthIndex.of_room`."""
        self._txn = txn
        self._room_nid = room_nid
        self._rooms = rooms
        self._at_hand = at_hand
        # Of events that were stored by others, and what this transaction has read.
        self._known: Mapping[int, tuple[int, ...]] | None = None
        self._fresh: dict[int, tuple[int, ...]] = {}
        self._unsaved: dict[int, tuple[int, ...]] = {}
        self._has_packs = False

    def of_each(self, event_nids: Collection[int]) -> dict[int, tuple[int, ...]]:
        """The auth events of each of these that is stored in the room."""
        known = self._known
        if known is None:
            known = self._known = self._rooms.get(self._room_nid, {})
        found = dict(zip(event_nids, map(known.get, event_nids), strict=True))
        missing = [number for number, auths in found.items() if auths is None]
        if missing:
            read = self._missing(missing)
            for number in missing:
                if number in read:
                    found[number] = read[number]
                else:
                    del found[number]
        return cast("dict[int, tuple[int, ...]]", found)

    def of_all(self, event_nids: Collection[int]) -> set[int]:
        """The auth events of all of these together."""
        # Most events of a large room name the same few, and share the tuple.
        return set().union(*set(self.of_each(event_nids).values()))

    def _missing(self, event_nids: Collection[int]) -> dict[int, tuple[int, ...]]:
        fresh = self._fresh
        unread = [number for number in event_nids if number not in fresh]
        if len(unread) >= _MANY and not self._has_packs:
            self._has_packs = True
            self._keep(auth_packs.load(self._txn, self._room_nid))
            unread = [number for number in unread if number not in fresh]
        if not unread:
            return fresh
        whole, partial = _read(self._txn, self._room_nid, unread, self._at_hand)
        self._keep(whole)
        if self._has_packs:
            self._unsaved.update(whole)
        # What names events that are not stored yet is read again, since they may be then.
        return {**fresh, **partial} if partial else fresh

    def save(self) -> None:
        """Store what many events had to be read for, in a transaction that holds the room's lock:
        then it need not be read again."""
        if len(self._unsaved) >= _MANY:
            auth_packs.save(self._txn, self._room_nid, self._unsaved)
            self._unsaved = {}

    def _keep(self, edges: Mapping[int, tuple[int, ...]]) -> None:
        if edges and not self._fresh:
            # Not before the commit: numbers of a transaction that is rolled back are used again.
            self._txn.after_commit(self._remember)
        self._fresh.update(edges)

    def _remember(self) -> None:
        room_nid = self._room_nid
        self._rooms.put(room_nid, {**self._rooms.get(room_nid, {}), **self._fresh})


def _size(room_nid: int, edges: Mapping[int, tuple[int, ...]]) -> int:
    return 200 + 110 * len(edges) + 110 * len({id(auths) for auths in edges.values()})


def _read(
    txn: Transaction,
    room_nid: int,
    event_nids: Sequence[int],
    at_hand: Callable[[int], AtHand | None],
) -> tuple[dict[int, tuple[int, ...]], dict[int, tuple[int, ...]]]:
    """Auth events by number: of events of which all are stored, and of others."""
    named: dict[int, tuple[str, ...]] = {}
    numbers: dict[str, int] = {}
    unread = []
    for number in event_nids:
        known = at_hand(number)
        if known is None:
            unread.append(number)
        else:
            numbers[known.event_id] = number
            named[number] = known.auth_event_ids
    for part in _parts(unread):
        where, args = txn.any_of("event_nid", part)
        rows = txn.all(
            f"SELECT event_nid, event_id, json FROM events WHERE {where} AND room_nid = ?",
            [*args, room_nid],
        )
        for number, event_id, text in rows:
            numbers[event_id] = number
            named[number] = _auth_ids(text)
    names: set[str] = set().union(*named.values())
    for part in _parts(list(names - numbers.keys())):
        where, args = txn.any_of("event_id", part)
        rows = txn.all(
            f"SELECT event_id, event_nid FROM events WHERE {where} AND room_nid = ?",
            [*args, room_nid],
        )
        numbers.update((row[0], row[1]) for row in rows)
    whole: dict[int, tuple[int, ...]] = {}
    partial: dict[int, tuple[int, ...]] = {}
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}
    for number, auth_ids in named.items():
        found = tuple([numbers[name] for name in auth_ids if name in numbers])
        if len(found) == len(auth_ids):
            whole[number] = shared.setdefault(found, found)
        else:
            partial[number] = found
    return whole, partial


def _auth_ids(text: str) -> tuple[str, ...]:
    entries = _DECODER.decode(text).auth_events
    return tuple([entry if isinstance(entry, str) else entry[0] for entry in entries])


def _parts(values: Sequence) -> Iterator[Sequence]:  # type: ignore[type-arg]
    for start in range(0, len(values), _PART):
        yield values[start : start + _PART]
