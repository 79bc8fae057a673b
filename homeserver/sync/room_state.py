"""The state of a room in `/sync`.

1. `state` holds what changed between the client's token and the start of the timeline; applied
   after it, the timeline's events give the state at its end. So a key that the timeline shows has
   its value from before the timeline, and every other its value at the end: also one that state
   resolution changed without an event, or whose event the timeline's filter hides.
2. With `use_state_after`, `state_after` holds what changed up to the end of the timeline.
3. Without a token, or with `full_state`, "what changed" is everything.
4. With lazy loading, member events are those of the timeline's senders that the device does not
   have and those that changed since the token; of a room that is new to the client, the senders',
   the heroes' and the own. See "Lazy-loading room members". A client that was in the room at its
   token has members, and keeps them: of what changed it is told also where it is sent everything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from homeserver.core import state_tree
from homeserver.core.types import StateKey
from homeserver.rooms.view import RoomView
from homeserver.sync.request import Snapshot
from homeserver.sync.room_timeline import RoomTimeline
from storage import events, state
from storage.events import EventRow

MEMBER = "m.room.member"
_NAMES = (("m.room.name", ""), ("m.room.canonical_alias", ""))


@dataclass(frozen=True, slots=True)
class Between:
    """Roots of the state that the client knows (None: it is sent everything), and at the end.

    `is_current`: the end is the room's current state. `at_token`: with lazy loading, the root of
    the state that the client knew of a room that it is sent anew.
    """

    old: bytes | None
    new: bytes | None
    is_current: bool
    at_token: bytes | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What changed: numbers of events by state key. With lazy loading, of a room that is sent as
    a whole, without the members that have not changed."""

    entries: dict[StateKey, int]
    touches_summary: bool
    """Counts or heroes may have changed."""


def find_change(
    snapshot: Snapshot, view: RoomView, timeline: RoomTimeline, between: Between
) -> Change:
    """What changed between the token and the end of the timeline."""
    new = between.new or state_tree.EMPTY
    if between.old is None:
        known = _known_ahead(snapshot, view, between)
        if not snapshot.request.filter.room.lazy_load_members:
            return Change(view.numbers_at(new) if known is None else known, True)
        if known is not None:
            found = known
        elif between.is_current:
            found = state.current_numbers(snapshot.txn, view.room.room_nid, without=MEMBER)
        else:
            found = view.numbers_at(new, lambda key: key[0] != MEMBER)
        if between.at_token is not None:
            changed = view.numbers_changed(between.at_token, new)
            found |= {key: n for key, n in changed.items() if key[0] == MEMBER and n is not None}
        return Change(found, True)
    if between.old == new:
        return Change({}, False)
    entries = view.numbers_changed(between.old, new)
    touches = any(key[0] == MEMBER or key in _NAMES for key in entries)
    found = {key: number for key, number in entries.items() if number is not None}
    return Change(found, touches)


def _known_ahead(
    snapshot: Snapshot, view: RoomView, between: Between
) -> dict[StateKey, int] | None:
    """The current state as far as the client is sent it, if it was read with that of others."""
    if snapshot.ahead is None or not between.is_current:
        return None
    known = snapshot.ahead.numbers.get(view.room.room_nid)
    return None if known is None else dict(known)


def read_state(
    snapshot: Snapshot,
    view: RoomView,
    timeline: RoomTimeline,
    between: Between,
    change: Change,
    heroes: Collection[str],
) -> list[EventRow]:
    """The state events to send."""
    wanted = snapshot.request.filter.room.state
    if wanted.matches_nothing:
        return []
    entries = dict(change.entries)
    lazy = wanted.lazy_load_members
    if lazy:
        entries |= _lazy_members(snapshot, view, timeline, between, entries, heroes)
    shown = any(item.row.state_key is not None for item in timeline.seen)
    if shown and not snapshot.request.use_state_after:
        _go_back(snapshot, view, timeline, between, entries)
    rows = _rows(snapshot, view, entries)
    if lazy:
        snapshot.sent_members.update(row.event_nid for row in rows if row.type == MEMBER)
        snapshot.sent_members.update(
            item.row.event_nid for item in timeline.seen if item.row.type == MEMBER
        )
    return rows


def _go_back(
    snapshot: Snapshot,
    view: RoomView,
    timeline: RoomTimeline,
    between: Between,
    entries: dict[StateKey, int],
) -> None:
    """Give the keys that the timeline shows their values from before it."""
    rows = [item.row for item in timeline.seen]
    shown = {(row.type, row.state_key) for row in rows if row.state_key is not None}
    numbers = {row.event_nid for row in rows}
    before = view.numbers(timeline.start_root, shown) if timeline.start_root else {}
    known = view.numbers(between.old, shown) if between.old else {}
    if snapshot.request.filter.room.lazy_load_members:
        # The device may never have had them.
        names = {row.sender for row in rows}
        known = {
            key: number
            for key, number in known.items()
            if key[0] != MEMBER or key[1] not in names or number in snapshot.known_members
        }
    for key in shown:
        if key in entries and entries[key] not in numbers:
            # The timeline does not show the last change of this key, or resolution undid it.
            continue
        number = before.get(key)
        if number is None or number == known.get(key) or number in numbers:
            entries.pop(key, None)
        else:
            entries[key] = number


def _lazy_members(
    snapshot: Snapshot,
    view: RoomView,
    timeline: RoomTimeline,
    between: Between,
    entries: dict[StateKey, int],
    heroes: Collection[str],
) -> dict[StateKey, int]:
    """Members to send besides those that changed."""
    request = snapshot.request
    names = {item.row.sender for item in timeline.seen} | set(heroes)
    if between.old is None:
        names.add(request.user_id)
    keys = [(MEMBER, name) for name in names if (MEMBER, name) not in entries]
    if not keys or between.new is None:
        return {}
    ahead = None
    if snapshot.ahead is not None and between.is_current and between.old is None:
        ahead = snapshot.ahead.members.get(view.room.room_nid)
    if ahead is None:
        found = view.numbers(between.new, keys)
    else:
        found = {key: ahead[key] for key in keys if key in ahead}
    if request.filter.room.state.include_redundant_members:
        return found
    if between.old is None:
        # The client starts anew with this room, and may have dropped what it knew of it when the
        # user left.
        return found
    known = snapshot.known_members
    return {key: number for key, number in found.items() if number not in known}


def _rows(snapshot: Snapshot, view: RoomView, entries: dict[StateKey, int]) -> list[EventRow]:
    wanted = snapshot.request.filter.room.state
    if not entries:
        return []
    if wanted.types is not None or wanted.not_types:
        entries = {key: number for key, number in entries.items() if wanted.matches_type(key[0])}
    numbers = list(entries.values())
    rows: dict[int, EventRow] = {}
    if snapshot.ahead is not None:
        known = snapshot.ahead.rows
        rows = {number: known[number] for number in numbers if number in known}
    missing = [number for number in numbers if number not in rows]
    for start in range(0, len(missing), 500):
        rows |= events.get_by_nids(snapshot.txn, missing[start : start + 500])
    found = [rows[number] for number in numbers if number in rows]
    if wanted.matches_everything:
        return found
    room_id = view.room.room_id
    return [
        row
        for row in found
        if wanted.matches_event(row.type, row.sender, room_id, contains_url=bool(row.contains_url))
    ]
