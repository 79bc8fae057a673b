"""Rooms that the user is invited to, knocks on or is not in any more, in the answer of sliding
sync."""

from __future__ import annotations

from homeserver.core import state_tree
from homeserver.core.client_format import strip_pdu
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.view import RoomView
from homeserver.sync import room_section
from homeserver.sync.request import Snapshot
from homeserver.sync.room_timeline import RoomTimeline, read_timeline
from homeserver.sync.sliding.joined import Section, Task, with_limit
from homeserver.sync.sliding.required_state import MEMBER, RequiredState
from homeserver.sync.sliding.room_list import PENDING, stamp, stripped
from storage import events, gaps, memberships, rooms, state
from storage.events import EventRow
from storage.memberships import MembershipRow
from storage.rooms import RoomRow


def read_others(snapshot: Snapshot, tasks: list[Task]) -> dict[int, Section]:
    """The sections of such rooms, by number."""
    tasks = [
        task
        for task in tasks
        if task.is_forced or task.since is None or task.listed.member_pos > task.since
    ]
    if not tasks:
        return {}
    nids = [task.listed.room_nid for task in tasks]
    members = {
        row.room_nid: row
        for row in memberships.of_user_in(snapshot.txn, snapshot.request.user_id, nids)
    }
    gone = [task.listed.room_nid for task in tasks if task.listed.membership not in PENDING]
    known = rooms.get_many(snapshot.txn, gone)
    found = {}
    for task in tasks:
        nid = task.listed.room_nid
        if task.listed.membership in PENDING:
            answer, is_fresh = _pending(members[nid]), True
        else:
            answer = _left(snapshot, task, known[nid], members[nid])
            is_fresh = task.since is None
        if is_fresh:
            answer["initial"] = True
        answer["bump_stamp"] = stamp(task.listed)
        found[nid] = Section(answer, is_fresh, True, True)
    return found


def _pending(member: MembershipRow) -> JsonObject:
    # Other servers may send anything.
    state_events = [strip_pdu(event) for event in stripped(member)]
    return {"invite_state": state_events, "stripped_state": state_events}


def _left(snapshot: Snapshot, task: Task, room: RoomRow, member: MembershipRow) -> JsonObject:
    """A room that the user is not in any more, up to their leave."""
    snapshot = with_limit(snapshot, task.config.timeline_limit)
    view = room_section.view_of(snapshot, room)
    until, end = view.stay.joined_until, member.pos
    rows: dict[StateKey, EventRow] = {}
    if until is None or (task.since is not None and until <= task.since < end):
        # An invite or a knock came to its end: there is nothing to see but that.
        timeline = read_timeline(snapshot, view, end - 1, end)
    else:
        last_break = gaps.last_break(snapshot.txn, room.room_nid, until)
        timeline = read_timeline(snapshot, view, task.since, until, last_break)
        rows = _state(snapshot, task, view, timeline, until)
    own = events.get_by_nids(snapshot.txn, [member.event_nid])
    if own:
        rows[MEMBER, member.user_id] = own[member.event_nid]
    now_ms = snapshot.now_ms
    since = snapshot.request.since
    return {
        "timeline": view.render(timeline.seen, now_ms, room_id=False),
        "limited": timeline.limited,
        "prev_batch": timeline.prev_batch,
        "num_live": sum(
            since is not None and (item.row.pos or 0) > since for item in timeline.seen
        ),
        "required_state": view.render_state(list(rows.values()), now_ms, room_id=False),
    }


def _state(
    snapshot: Snapshot, task: Task, view: RoomView, timeline: RoomTimeline, until: int
) -> dict[StateKey, EventRow]:
    """The state at the end, or what changed of it."""
    txn, room_nid = snapshot.txn, view.room.room_nid
    required: RequiredState = task.config.required_state
    end = state.root_at(txn, room_nid, until) or state_tree.EMPTY
    if task.since is not None:
        old = state.root_at(txn, room_nid, min(task.since, until)) or state_tree.EMPTY
        found = view.state_change(old, end, choose=lambda key: required.matches(*key))
    elif required.types or required.any_types:
        found = view.state_at(end, choose=lambda key: required.matches(*key))
    else:
        found = view.state_at(end, required.keys)
    if required.is_lazy:
        names = {(MEMBER, item.row.sender) for item in timeline.seen}
        found |= view.state_at(end, names - found.keys())
    return found
