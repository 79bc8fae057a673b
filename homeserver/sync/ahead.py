"""What the sections of several rooms are made of, read for all of them at once.

A first `/sync` tells of every room of the user. With PostgreSQL the number of statements is what
that costs, so what every room needs is asked for in one statement for many of them. Whatever is
not found here is read room by room.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from homeserver.core.types import StateKey
from homeserver.sync.request import Ahead, Snapshot
from homeserver.sync.room_timeline import DEFAULT_LIMIT, MAX_LIMIT, first_wanted
from homeserver.sync.summary import HEROES
from storage import events, relations, windows
from storage.events import EventRow
from storage.user_news import RoomThen

AT_ONCE = 50
"""Rooms."""
_MAX_EVENTS = 50
"""Events of each timeline; longer ones are read room by room."""
_MAX_STATE = 5_000
"""State events of all the rooms."""

_MEMBER = "m.room.member"
_NAMES = {("m.room.name", ""): "name", ("m.room.canonical_alias", ""): "alias"}


@dataclass(slots=True)
class _State:
    """The current state of rooms that the client is sent: of lazy clients without members."""

    numbers: dict[int, dict[StateKey, int]]
    rows: dict[int, EventRow]


def with_rooms(snapshot: Snapshot, rooms: Sequence[RoomThen]) -> Snapshot:
    """The snapshot with what is needed of rooms of which the client knows nothing."""
    if len(rooms) < 2:
        return snapshot
    txn, request = snapshot.txn, snapshot.request
    nids = [room.row.room_nid for room in rooms]
    lazy = request.filter.room.lazy_load_members
    timelines = _timelines(snapshot, rooms)
    state = _state(snapshot, nids, lazy=lazy)
    nameless = [nid for nid in nids if nid in state.numbers and not _is_named(state, nid)]
    heroes: dict[int, list[str]] = {nid: [] for nid in state.numbers}
    for nid, found in windows.heroes(txn, nameless, request.user_id, HEROES).items():
        heroes[nid] = [hero.user_id for hero in found]
    members: dict[int, dict[StateKey, int]] = {}
    if lazy and timelines:
        members = _members(snapshot, timelines, heroes, state.rows)
    shown = [row.event_id for rows in timelines.values() for row in rows]
    ahead = Ahead(
        timelines=timelines,
        numbers=state.numbers,
        members=members,
        rows=state.rows,
        heroes=heroes,
        counts=windows.member_counts(txn, nids),
        related=relations.with_children(txn, shown),
    )
    return replace(snapshot, ahead=ahead)


def _timelines(snapshot: Snapshot, rooms: Iterable[RoomThen]) -> dict[int, list[EventRow]]:
    wanted = snapshot.request.filter.room.timeline
    limit = wanted.limit_within(DEFAULT_LIMIT, MAX_LIMIT)
    if wanted.matches_nothing or not wanted.matches_everything or limit > _MAX_EVENTS:
        return {}
    return windows.newest_events(
        snapshot.txn,
        [
            windows.Wanted(
                room.row.room_nid, first_wanted(None, room.last_break), snapshot.now, limit + 1
            )
            for room in rooms
        ],
    )


def _state(snapshot: Snapshot, nids: Sequence[int], *, lazy: bool) -> _State:
    numbers = windows.current_numbers(
        snapshot.txn, nids, _MAX_STATE, without=_MEMBER if lazy else None
    )
    if numbers is None:
        return _State({}, {})
    wanted = snapshot.request.filter.room.state
    needed = [
        number
        for entries in numbers.values()
        for key, number in entries.items()
        if key in _NAMES or wanted.matches_type(key[0])
    ]
    rows: dict[int, EventRow] = {}
    for start in range(0, len(needed), 500):
        rows |= events.get_by_nids(snapshot.txn, needed[start : start + 500])
    return _State(numbers, rows)


def _is_named(state: _State, nid: int) -> bool:
    """As `storage.state.current_names`."""
    for key, field in _NAMES.items():
        row = state.rows.get(state.numbers[nid].get(key, 0))
        value = None if row is None else json.loads(row.json)["content"].get(field)
        if isinstance(value, str) and value:
            return True
    return False


def _members(
    snapshot: Snapshot,
    timelines: Mapping[int, Sequence[EventRow]],
    heroes: Mapping[int, Sequence[str]],
    rows: dict[int, EventRow],
) -> dict[int, dict[StateKey, int]]:
    """Who one needs to show the timelines; their events are added to `rows`."""
    own = snapshot.request.user_id
    names = {
        nid: {own, *heroes.get(nid, ()), *(row.sender for row in timeline)}
        for nid, timeline in timelines.items()
    }
    found: dict[int, dict[StateKey, int]] = {nid: {} for nid in names}
    for nid, entries in windows.current_members(snapshot.txn, names).items():
        for key, row in entries.items():
            found[nid][key] = row.event_nid
            rows[row.event_nid] = row
    return found
