"""One room in the answer of `/sync`: joined, left, invited or knocked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from homeserver.core import state_tree
from homeserver.core.types import JsonObject
from homeserver.rooms import aggregations
from homeserver.rooms.view import RoomView
from homeserver.sync import summary
from homeserver.sync.request import Snapshot
from homeserver.sync.room_state import Between, has_member_change, read_state
from homeserver.sync.room_timeline import RoomTimeline, read_timeline
from storage import events, state
from storage.events import EventRow
from storage.memberships import MembershipRow
from storage.rooms import RoomRow
from storage.unread import Counts


def view_of(snapshot: Snapshot, room: RoomRow) -> RoomView:
    """The room as the syncing user sees it."""
    request = snapshot.request
    return RoomView(snapshot.txn, snapshot.states, room, request.user_id, request.device_id)


def joined(snapshot: Snapshot, room: RoomRow, *, newly: bool) -> JsonObject | None:
    """A room that the user is in: its timeline, state and summary.

    Parameters: `newly`, the user was not in it at the token. None if nothing is new in it.
    """
    request = snapshot.request
    view = view_of(snapshot, room)
    after = None if newly else request.since
    timeline = read_timeline(snapshot, view, after, snapshot.now)
    old = state_tree.EMPTY
    if after is not None and not request.full_state:
        old = state.root_at(snapshot.txn, room.room_nid, after) or old
    between = Between(old, room.state_root or state_tree.EMPTY)
    heroes: list[str] = []
    if between.is_everything:
        heroes = summary.heroes(snapshot.txn, room.room_nid, request.user_id)
    rows = read_state(snapshot, view, timeline, between, heroes)
    quiet = not timeline.seen and not timeline.limited and not rows
    if quiet and after is not None and not request.full_state:
        return None
    section = _section(snapshot, view, timeline, rows)
    shown = [item.row for item in timeline.seen]
    changed = has_member_change(rows) or has_member_change(shown)
    if changed and not between.is_everything:
        heroes = summary.heroes(snapshot.txn, room.room_nid, request.user_id)
    if changed or between.is_everything:
        section["summary"] = summary.summary(snapshot.txn, room.room_nid, heroes)
    return section


def left(
    snapshot: Snapshot, room: RoomRow, member: MembershipRow, *, was_joined: bool
) -> JsonObject:
    """A room that the user left, up to the leave.

    Parameters: `was_joined`, the user was in it at the token.
    """
    request = snapshot.request
    view = view_of(snapshot, room)
    since = request.since if was_joined else None
    if view.stay.joined_until != member.pos:
        # An invite or a knock came to its end: there is nothing to see but that.
        return _ended(snapshot, view, member)
    timeline = read_timeline(snapshot, view, since, member.pos)
    leave = events.get(snapshot.txn, member.event_id)
    new = leave.state_after if leave is not None and leave.state_after else state_tree.EMPTY
    old = state_tree.EMPTY
    if since is not None and not request.full_state:
        old = state.root_at(snapshot.txn, room.room_nid, since) or old
    rows = read_state(snapshot, view, timeline, Between(old, new), ())
    return _section(snapshot, view, timeline, rows)


def _ended(snapshot: Snapshot, view: RoomView, member: MembershipRow) -> JsonObject:
    timeline = read_timeline(snapshot, view, member.pos - 1, member.pos)
    return _section(snapshot, view, timeline, [])


def _section(
    snapshot: Snapshot, view: RoomView, timeline: RoomTimeline, rows: Sequence[EventRow]
) -> JsonObject:
    wanted = snapshot.request.filter
    federation = wanted.event_format == "federation"
    relations = aggregations.bundle(view, timeline.seen, snapshot.now_ms, room_id=False)
    shown = view.render(
        timeline.seen,
        snapshot.now_ms,
        room_id=False,
        federation_format=federation,
        relations=relations,
    )
    states = view.render_state(rows, snapshot.now_ms, room_id=False, federation_format=federation)
    after = snapshot.request.use_state_after
    return {
        "timeline": {
            "events": [wanted.trim(event) for event in shown],
            "limited": timeline.limited,
            "prev_batch": timeline.prev_batch,
        },
        "state_after" if after else "state": {"events": [wanted.trim(event) for event in states]},
    }


def stripped(member: MembershipRow) -> dict[str, Any]:
    """The stripped state of an invite or a knock."""
    events_: list[JsonObject] = json.loads(member.stripped_state or "[]")
    return {"events": events_}


def unread(section: JsonObject, counts: Counts, *, by_thread: bool) -> None:
    """Put the unread counts into the section of a joined room."""
    whole = counts.main if by_thread else counts.total
    section["unread_notifications"] = {
        "notification_count": whole.notify,
        "highlight_count": whole.highlight,
    }
    if by_thread:
        section["unread_thread_notifications"] = {
            root: {"notification_count": count.notify, "highlight_count": count.highlight}
            for root, count in counts.threads.items()
        }
