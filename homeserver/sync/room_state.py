"""The state of a room in `/sync`.

1. `state` holds what changed between the client's token and the start of the timeline; together
   with the timeline's events it gives the state at the timeline's end. A state event that the
   timeline's filter hides is in `state`.
2. With `use_state_after`, `state_after` holds what changed up to the end of the timeline.
3. Without a token, or with `full_state`, "what changed" is everything.
4. With lazy loading, member events are those of the timeline's senders and, in a gap, those that
   changed; see "Lazy-loading room members".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from homeserver.core import state_tree
from homeserver.core.types import StateKey
from homeserver.rooms.view import RoomView
from homeserver.sync.lazy_members import Reading
from homeserver.sync.request import Snapshot
from homeserver.sync.room_timeline import RoomTimeline
from storage.events import EventRow

MEMBER = "m.room.member"
Choose = Callable[[StateKey], bool]


@dataclass(frozen=True, slots=True)
class Between:
    """Roots of the state at the client's token (the empty state if it knows nothing), and at the
    end of the timeline."""

    old: bytes
    new: bytes

    @property
    def is_everything(self) -> bool:
        """Whether the client knows nothing of the room."""
        return self.old == state_tree.EMPTY


def read_state(
    snapshot: Snapshot,
    view: RoomView,
    timeline: RoomTimeline,
    between: Between,
    heroes: Collection[str],
) -> list[EventRow]:
    """The state events to send."""
    request = snapshot.request
    lazy = request.filter.room.lazy_load_members
    needed = _needed_members(snapshot, timeline, between, heroes) if lazy else frozenset()

    def choose(key: StateKey) -> bool:
        if not lazy or key[0] != MEMBER or not between.is_everything:
            return True
        return key[1] in needed

    start = timeline.start_root if timeline.start_root is not None else between.new
    if request.use_state_after:
        found = _changed(view, between.old, between.new, choose)
    else:
        found = _changed(view, between.old, start, choose)
        if start != between.new:
            _add_hidden(view, timeline, start, between.new, choose, found)
    if lazy:
        root = between.new if request.use_state_after else start
        _lazy_load(snapshot, view, root, between, needed, timeline, found)
    wanted = request.filter.room.state
    return [
        row
        for row in found.values()
        if wanted.matches_event(
            row.type, row.sender, view.room.room_id, contains_url=bool(row.contains_url)
        )
    ]


def _changed(view: RoomView, old: bytes, new: bytes, choose: Choose) -> dict[StateKey, EventRow]:
    if old == new:
        return {}
    if old == state_tree.EMPTY:
        return view.state_at(new, choose=choose)
    return view.state_change(old, new, choose=choose)


def _add_hidden(
    view: RoomView,
    timeline: RoomTimeline,
    start: bytes,
    end: bytes,
    choose: Choose,
    found: dict[StateKey, EventRow],
) -> None:
    """Changes within the timeline's span whose events the timeline does not show."""
    shown = {item.row.event_id for item in timeline.seen}
    changes = view.state_change(start, end, choose=choose)
    found |= {key: row for key, row in changes.items() if row.event_id not in shown}


def _needed_members(
    snapshot: Snapshot, timeline: RoomTimeline, between: Between, heroes: Collection[str]
) -> frozenset[str]:
    senders = {item.row.sender for item in timeline.seen}
    if between.is_everything:
        senders |= {snapshot.request.user_id, *heroes}
    return frozenset(senders)


def _lazy_load(
    snapshot: Snapshot,
    view: RoomView,
    root: bytes,
    between: Between,
    needed: Collection[str],
    timeline: RoomTimeline,
    found: dict[StateKey, EventRow],
) -> None:
    """Add the members of the timeline's senders that the device does not have."""
    request = snapshot.request
    reading = Reading(request.user_id, request.device_id, view.room.room_nid)
    shown = {
        (item.row.state_key, item.row.event_id)
        for item in timeline.seen
        if item.row.type == MEMBER and item.row.state_key is not None
    }
    missing = [(MEMBER, name) for name in needed if (MEMBER, name) not in found]
    members = view.state_at(root, missing) if missing and not between.is_everything else {}
    redundant = request.filter.room.state.include_redundant_members
    for key, row in members.items():
        if (key[1], row.event_id) in shown and not request.use_state_after:
            continue
        known = request.since is not None and snapshot.sent_members.was_sent(
            reading, request.since, key[1], row.event_id
        )
        if redundant or not known:
            found[key] = row
    sent = [(key[1], row.event_id) for key, row in found.items() if key[0] == MEMBER]
    snapshot.sent_members.add(
        reading, snapshot.now, [*sent, *((name or "", event) for name, event in shown)]
    )


def has_member_change(rows: Mapping[str, EventRow] | Collection[EventRow]) -> bool:
    """Whether member events are among these."""
    values = rows.values() if isinstance(rows, Mapping) else rows
    return any(row.type == MEMBER for row in values)
