"""Which events the events of a state name as their auth events, by numbers, in memory.

State resolution asks this of all that is in a room's state, where branches differ in what
they were allowed by. It never changes, and needs none of the rest of the events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from homeserver.cache import Cache
from storage.transaction import Transaction

_PART = 2000


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

    def edges(
        self,
        txn: Transaction,
        room_nid: int,
        event_nids: Collection[int],
        at_hand: Callable[[int], AtHand | None] = lambda number: None,
    ) -> dict[int, tuple[int, ...]]:
        """Numbers of the auth events of each of these, as far as they are stored in the room.

        Parameters: `at_hand` gives what is to be read of a stored event, by its number, if the
        caller has read it already.
        """
        known = self._rooms.get(room_nid, {})
        asked = set(event_nids)
        missing = list(asked.difference(known))
        found = {number: known[number] for number in asked.difference(missing)}
        if missing:
            whole, partial = _read(txn, room_nid, missing, at_hand)
            # Not before the commit: numbers of a transaction that is rolled back are used again.
            txn.after_commit(lambda: self._remember(room_nid, whole))
            found |= whole | partial
        return found

    def _remember(self, room_nid: int, fresh: Mapping[int, tuple[int, ...]]) -> None:
        self._rooms.put(room_nid, {**self._rooms.get(room_nid, {}), **fresh})


def _size(room_nid: int, edges: Mapping[int, tuple[int, ...]]) -> int:
    # The numbers themselves are shared among those that name them.
    return 200 + 220 * len(edges)


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
    for number, auth_ids in named.items():
        found = tuple([numbers[name] for name in auth_ids if name in numbers])
        (whole if len(found) == len(auth_ids) else partial)[number] = found
    return whole, partial


def _auth_ids(text: str) -> tuple[str, ...]:
    entries = _DECODER.decode(text).auth_events
    return tuple([entry if isinstance(entry, str) else entry[0] for entry in entries])


def _parts(values: Sequence) -> Iterator[Sequence]:  # type: ignore[type-arg]
    for start in range(0, len(values), _PART):
        yield values[start : start + _PART]
