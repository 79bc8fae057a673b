"""Rooms of which the client knows nothing, in the answer of `/sync`, from what is kept in memory.

As `homeserver.sync.room_section.joined`, with the same result, for rooms in which the reader was
there at every event of the timeline, or may see what was before (`homeserver.sync.unbroken`). All
other rooms take that way. Single events that take a
closer look (to which others relate, which replaced others, redacted ones) are read and rendered as
usual.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.core.client_text import JOINED, membership_text, transaction
from homeserver.core.ids import domain_of
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms import aggregations
from homeserver.rooms.merging import DUMMY
from homeserver.rooms.shown_rooms import (
    MAX_EVENTS,
    Asked,
    ShownEvent,
    ShownRoom,
    ShownRooms,
    ShownState,
)
from homeserver.rooms.shown_state import listed, texts
from homeserver.rooms.view import RoomView, Seen
from homeserver.sync import room_section
from homeserver.sync.request import Snapshot
from homeserver.sync.room_timeline import DEFAULT_LIMIT, MAX_LIMIT
from homeserver.sync.summary import HEROES
from homeserver.sync.unbroken import is_open, is_unbroken, own_memberships
from homeserver.web.responses import encode_json
from storage import erasures, events
from storage.events import EventRow
from storage.user_news import RoomThen

AT_ONCE = 100
"""Rooms."""
_ROWS = 500
_MEMBER = "m.room.member"
_NOTHING: Mapping[str, str] = {}


@dataclass(slots=True)
class _Plan:
    """A room that can be shown."""

    then: RoomThen
    room: ShownRoom
    view: RoomView
    events: Sequence[ShownEvent]
    """The timeline, oldest first."""
    limited: bool
    heroes: list[str]
    names: Collection[str]
    """Whose member events a lazy client needs."""
    early: Mapping[str, str]
    """The reader's membership at the events from before they joined, by event ID."""
    is_unbroken: bool
    """See `homeserver.sync.unbroken`."""
    states: list[ShownState] = field(default_factory=list)
    old_states: list[int] = field(default_factory=list)
    """Numbers of the events before the timeline whose state keys it shows anew."""
    old_names: list[str] = field(default_factory=list)
    """The same by ID, of which the numbers are not known yet."""

    @property
    def closely(self) -> list[int]:
        """Numbers of the events that are not shown by their text."""
        found = [event.event_nid for event in self.events if _is_special(event)]
        found += [one.event_nid for one in self.states if one.form is None]
        return found + self.old_states


def _is_special(event: ShownEvent) -> bool:
    return event.form is None or event.is_related or event.replaces_state is not None


def suits(snapshot: Snapshot) -> bool:
    """Whether a request is of the kind that is answered from memory."""
    request, wanted = snapshot.request, snapshot.request.filter
    timeline, state = wanted.room.timeline, wanted.room.state
    return (
        request.since is None
        and snapshot.states.begins is None
        and wanted.event_fields is None
        and wanted.event_format == "client"
        and timeline.matches_everything
        and 0 < timeline.limit_within(DEFAULT_LIMIT, MAX_LIMIT) < MAX_EVENTS
        and state.matches_everything
    )


def read(snapshot: Snapshot, kept: ShownRooms, rooms: Sequence[RoomThen]) -> dict[int, JsonObject]:
    """Sections of those rooms, by number, that can be shown by what is kept. Events in them are
    `msgspec.Raw`. The request has to be one that `suits`."""
    wanted = snapshot.request.filter.room
    lazy = wanted.lazy_load_members
    limit = wanted.timeline.limit_within(DEFAULT_LIMIT, MAX_LIMIT)
    asked = [Asked(then.row, then.content_version) for then in rooms]
    found = kept.read(snapshot.txn, asked, limit + 1, all_members=not lazy)
    plans = {}
    for then in rooms:
        room = found.get(then.row.room_nid)
        plan = None if room is None else _plan(snapshot, then, room, limit)
        if plan is not None:
            plans[then.row.room_nid] = plan
    plans = _without_erased(snapshot, plans)
    if lazy:
        kept.add_members(
            snapshot.txn, [(nid, plan.room, plan.names) for nid, plan in plans.items()]
        )
    plans = {nid: plan for nid, plan in plans.items() if _choose_states(snapshot, plan, lazy)}
    rows = _rows(snapshot, list(plans.values()))
    return {nid: _section(snapshot, plan, rows) for nid, plan in plans.items()}


def _without_erased(snapshot: Snapshot, plans: Mapping[int, _Plan]) -> dict[int, _Plan]:
    """Those of the rooms in which nobody is shown whose account was erased, and who may have to be
    shown otherwise to those who joined later."""
    early = {
        nid: {e.sender for e in plan.events if e.event_id in plan.early}
        for nid, plan in plans.items()
    }
    erased = erasures.among(snapshot.txn, set().union(*early.values()))
    return {nid: plan for nid, plan in plans.items() if erased.keys().isdisjoint(early[nid])}


def _rows(snapshot: Snapshot, plans: Sequence[_Plan]) -> dict[int, EventRow]:
    """What is not shown by its text, by number."""
    rows: dict[int, EventRow] = {}
    names = [name for plan in plans for name in plan.old_names]
    old: dict[str, EventRow] = {}
    for start in range(0, len(names), _ROWS):
        old |= events.get_many(snapshot.txn, names[start : start + _ROWS])
    for plan in plans:
        found = [old[name] for name in plan.old_names if name in old]
        plan.old_states += [row.event_nid for row in found]
        rows |= {row.event_nid: row for row in found}
    needed = [number for plan in plans for number in plan.closely if number not in rows]
    for start in range(0, len(needed), _ROWS):
        rows |= events.get_by_nids(snapshot.txn, needed[start : start + _ROWS])
    return rows


def _plan(snapshot: Snapshot, then: RoomThen, room: ShownRoom, limit: int) -> _Plan | None:
    """The room if it can be shown."""
    user_id, joined_at, last_break = snapshot.request.user_id, then.joined_at, then.last_break
    known = room.events
    is_whole = len(known) < room.asked
    if last_break is not None:
        # The timeline begins anew behind a gap: see `room_timeline.first_wanted`.
        behind = [event for event in known if event.pos >= last_break]
        is_whole = is_whole or len(behind) < len(known)
        known = behind
    if joined_at is None or (len(known) <= limit and not is_whole):
        return None
    # As the general way, it looks at one event more than it shows.
    looked_at = known[: limit + 1]
    view = room_section.view_of(snapshot, then.row, joined_at)
    if not looked_at or not _is_plain(snapshot, looked_at):
        return None
    unbroken = is_unbroken(looked_at, then.row.state_root)
    early = _early(snapshot, room, view, looked_at, joined_at, unbroken)
    if early is None:
        return None
    shown = looked_at[:limit]
    heroes = room.heroes(user_id, HEROES)
    if heroes is None:
        return None
    return _Plan(
        then,
        room,
        view,
        shown[::-1],
        last_break is not None or len(known) > limit,
        heroes,
        {user_id, *heroes, *(event.sender for event in shown)},
        early,
        unbroken,
    )


def _is_plain(snapshot: Snapshot, events: Sequence[ShownEvent]) -> bool:
    """Whether none of the events is hidden whoever may see it."""
    ignored = snapshot.ignored
    return not any(
        event.type == DUMMY or (event.state_key is None and event.sender in ignored)
        for event in events
    )


def _early(
    snapshot: Snapshot,
    room: ShownRoom,
    view: RoomView,
    events: Sequence[ShownEvent],
    joined_at: int,
    unbroken: bool,
) -> Mapping[str, str] | None:
    """As `_Plan.early`; None if the reader may not see all of the events, or it takes a closer
    look to say so.

    Parameters: `events`, the newest first.
    """
    user_id = snapshot.request.user_id
    own = [event for event in events if event.type == _MEMBER and event.state_key == user_id]
    if events[-1].pos >= joined_at and all(event.pos == joined_at for event in own):
        # Who is there at the join sees it, and what comes after it, but for what came from other
        # servers with another state.
        domain = domain_of(user_id)
        if unbroken or all(domain_of(event.sender) == domain for event in events):
            return _NOTHING
        return None if view.has_unclear(events) else _NOTHING
    if not unbroken or not is_open(events, room.visibility):
        return None
    memberships = own_memberships(events, user_id)
    if memberships is None:
        return None
    early: dict[str, str] = {}
    for event, membership in zip(events, memberships, strict=True):
        if event.pos < joined_at:
            early[event.event_id] = membership
        elif membership != "join":
            return None
    return early


def _choose_states(snapshot: Snapshot, plan: _Plan, lazy: bool) -> bool:
    """Find the state events to send; False if that takes a closer look."""
    room = plan.room
    members = [room.members.get(name) for name in plan.names] if lazy else room.members.values()
    found = [*room.state.values(), *(one for one in members if one is not None)]
    if not snapshot.request.use_state_after:
        before = _before(plan)
        if before is None:
            return False
        # Of what the timeline shows, the value from before it.
        shown = {event.event_nid for event in plan.events}
        found = [one for one in found if one.event_nid not in shown]
        plan.old_states = [number for number in before if number not in shown]
    plan.states = found
    if lazy:
        sent = snapshot.sent_members
        sent.update(one.event_nid for one in members if one is not None)
        sent.update(event.event_nid for event in plan.events if event.type == _MEMBER)
    return True


def _before(plan: _Plan) -> Collection[int] | None:
    """Numbers of the events that the state keys which the timeline shows had before it; None if
    the timeline does not show their current ones (see `room_timeline.without_overtaken`)."""
    if plan.is_unbroken:
        first: dict[StateKey, str | None] = {}
        for event in plan.events:
            if event.state_key is not None:
                first.setdefault((event.type, event.state_key), event.replaces_state)
        plan.old_names = [name for name in first.values() if name is not None]
        return ()
    last: dict[StateKey, int] = {
        (event.type, event.state_key): event.event_nid
        for event in plan.events
        if event.state_key is not None
    }
    if not last:
        return ()
    start, end = plan.events[0].state_before, plan.then.row.state_root
    if start is None or end is None or plan.view.numbers(end, last) != last:
        return None
    return plan.view.numbers(start, last).values()


def _section(snapshot: Snapshot, plan: _Plan, rows: Mapping[int, EventRow]) -> JsonObject:
    summary: JsonObject = {
        "m.joined_member_count": plan.room.counts.get("join", 0),
        "m.invited_member_count": plan.room.counts.get("invite", 0),
    }
    if plan.heroes:
        summary["m.heroes"] = plan.heroes
    states = listed(_states(snapshot, plan, rows))
    return {
        "timeline": {
            "events": listed(_timeline(snapshot, plan, rows)),
            "limited": plan.limited,
            "prev_batch": str(SyncToken(plan.events[0].pos - 1, 0)),
        },
        "state_after" if snapshot.request.use_state_after else "state": {"events": states},
        "summary": summary,
    }


def _timeline(snapshot: Snapshot, plan: _Plan, rows: Mapping[int, EventRow]) -> Iterator[bytes]:
    request, now_ms = snapshot.request, snapshot.now_ms
    special = _render(snapshot, plan, rows)
    for event in plan.events:
        form = event.form
        if form is None or event.event_id in special:
            yield encode_json(special[event.event_id])
            continue
        early = plan.early.get(event.event_id)
        more = JOINED if early is None else membership_text(early)
        is_own = event.txn_device is not None and event.txn_device == request.device_id
        if is_own and event.sender == request.user_id and event.txn_id is not None:
            more += transaction(event.txn_id)
        yield b"{%b%d%b%b" % (form.head, now_ms - form.ts, more, form.tail)


def _render(snapshot: Snapshot, plan: _Plan, rows: Mapping[int, EventRow]) -> dict[str, JsonObject]:
    """The events that are not shown by their text, by ID."""
    chosen = [event for event in plan.events if _is_special(event)]
    if not chosen:
        return {}
    view, now_ms = plan.view, snapshot.now_ms
    found = [rows[event.event_nid] for event in chosen]
    seen = [Seen(row, view.event(row), plan.early.get(row.event_id, "join")) for row in found]
    relations: dict[str, JsonObject] = {}
    if any(event.is_related for event in chosen):
        relations = aggregations.bundle(view, seen, now_ms, ignored=snapshot.ignored, room_id=False)
    shown = view.render(seen, now_ms, room_id=False, relations=relations)
    return {row.event_id: one for row, one in zip(found, shown, strict=True)}


def _states(snapshot: Snapshot, plan: _Plan, rows: Mapping[int, EventRow]) -> list[bytes]:
    """The state, as `RoomView.render_state` shows it."""
    now_ms, since = snapshot.now_ms, plan.then.joined_at or 0
    own = plan.room.members.get(snapshot.request.user_id)
    found, special = texts(plan.view, plan.states, own, now_ms, since=since, room_id=False)
    if special or plan.old_states:
        closely = [rows[number] for number in (*special, *plan.old_states)]
        found += map(encode_json, plan.view.render_state(closely, now_ms, room_id=False))
    return found
