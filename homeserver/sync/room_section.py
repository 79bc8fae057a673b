"""One room in the answer of `/sync`: joined or left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from homeserver.core.filters import RoomFilter
from homeserver.core.types import JsonObject
from homeserver.rooms import aggregations
from homeserver.rooms.view import RoomView, Seen
from homeserver.sync import room_state, summary
from homeserver.sync.request import Snapshot
from homeserver.sync.room_state import Between
from homeserver.sync.room_timeline import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    RoomTimeline,
    first_wanted,
    read_timeline,
    without_overtaken,
)
from storage import events, gaps, memberships, state
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.unread import Counts
from storage.user_news import RoomThen

_REDACTION = "m.room.redaction"
_OLD_THREADS = "org.matrix.msc3773.unread_thread_notifications"


def view_of(snapshot: Snapshot, room: RoomRow, joined_at: int | None = None) -> RoomView:
    """The room as the syncing user sees it; `joined_at` as for `RoomView`."""
    request = snapshot.request
    return RoomView(
        snapshot.txn, snapshot.states, room, request.user_id, request.device_id, joined_at
    )


def joined(snapshot: Snapshot, then: RoomThen, since: int | None) -> JsonObject | None:
    """A room that the user is in: its timeline, state and summary. None if nothing is new.

    Parameters: `since`, from where on, None for "from the beginning".
    """
    request, room = snapshot.request, then.row
    if since is not None and snapshot.ahead is not None:
        snapshot = replace(snapshot, ahead=None)
    view = view_of(snapshot, room, then.joined_at)
    if since is None and snapshot.known_members:
        # The client may have dropped what it knew of the room when the user left.
        known = events.of_room(snapshot.txn, room.room_nid, snapshot.known_members)
        snapshot.dropped_members.update(known)
    timeline = _timeline(snapshot, view, since, snapshot.now, then.last_break)
    old = None
    if since is not None and not request.full_state:
        old = then.old_root
    at_token = _known_root(snapshot, room, then.old_root) if old is None else None
    between = Between(old, room.state_root, is_current=True, at_token=at_token)
    if not request.use_state_after:
        timeline = without_overtaken(snapshot, view, timeline, between.new)
    change = room_state.find_change(snapshot, view, timeline, between)
    if any(item.row.type == _REDACTION for item in timeline.seen):
        # It may have taken the room's name, which is no change of state.
        change = replace(change, touches_summary=True)
    heroes: list[str] = []
    if change.touches_summary:
        heroes = _heroes(snapshot, room.room_nid)
    rows = room_state.read_state(snapshot, view, timeline, between, change, heroes)
    is_news = bool(timeline.seen or timeline.limited or rows or change.touches_summary)
    if not is_news and since is not None and not request.full_state:
        return None
    section = _section(snapshot, view, timeline, rows)
    if change.touches_summary:
        section["summary"] = summary.summary(snapshot, room.room_nid, heroes)
    return section


def left(snapshot: Snapshot, room: RoomRow, end: int, since: int | None) -> JsonObject:
    """A room that the user is not in any more, up to their leave.

    Parameters: `end`, the position of the event that made them go; `since`, from where on, None
    if the user was not in the room at the token.
    """
    view = view_of(snapshot, room)
    until, token = view.stay.joined_until, snapshot.request.since
    if until is None or (token is not None and until <= token < end):
        # An invite or a knock came to its end: there is nothing to see but that.
        timeline = read_timeline(snapshot, view, end - 1, end)
        if not timeline.seen:
            timeline = _placeless_end(snapshot, view, end, timeline)
        return _section(snapshot, view, timeline, [])
    last_break = gaps.last_break(snapshot.txn, room.room_nid, until)
    timeline = _timeline(snapshot, view, since, until, last_break)
    new, old, at_token = state.root_at(snapshot.txn, room.room_nid, until), None, None
    if token is not None:
        root = state.root_at(snapshot.txn, room.room_nid, min(token, until))
        if since is not None and not snapshot.request.full_state:
            old = root
        else:
            at_token = _known_root(snapshot, room, root)
    between = Between(old, new, is_current=False, at_token=at_token)
    if not snapshot.request.use_state_after:
        timeline = without_overtaken(snapshot, view, timeline, between.new)
    change = room_state.find_change(snapshot, view, timeline, between)
    rows = room_state.read_state(snapshot, view, timeline, between, change, ())
    return _section(snapshot, view, timeline, rows)


def _placeless_end(
    snapshot: Snapshot, view: RoomView, end: int, found: RoomTimeline
) -> RoomTimeline:
    """The timeline with the event that ended an invite or a knock, if it has no place in it: this
    server is not in the room, or the event lost at first and won later."""
    room_nid, user_id = view.room.room_nid, snapshot.request.user_id
    change = memberships.at(snapshot.txn, room_nid, user_id, end)
    row = events.get(snapshot.txn, change.event_id) if change is not None else None
    wanted = snapshot.request.filter.room.timeline
    if (
        row is None
        or row.pos is not None
        or (row.type, row.state_key) != (room_state.MEMBER, user_id)
        or wanted.limit == 0
        or not wanted.matches_event(row.type, row.sender, view.room.room_id, contains_url=False)
    ):
        return found
    event = view.event(row)
    return replace(found, seen=[Seen(row, event, event.membership)])


def _known_root(snapshot: Snapshot, room: RoomRow, at_token: bytes | None) -> bytes | None:
    """The root of the state at the token if it matters which members the client has from then."""
    request = snapshot.request
    if request.since is None or not request.filter.room.lazy_load_members:
        return None
    last = memberships.at(snapshot.txn, room.room_nid, request.user_id, request.since)
    return at_token if last is not None and last.membership == "join" else None


def _timeline(
    snapshot: Snapshot, view: RoomView, since: int | None, upto: int, last_break: int | None
) -> RoomTimeline:
    """The timeline after `since`; None: from the beginning."""
    rows: Sequence[EventRow] | None = None
    if since is None and snapshot.ahead is not None:
        rows = snapshot.ahead.timelines.get(view.room.room_nid)
    elif since is not None and upto == snapshot.now:
        rows = _shared_rows(snapshot, view.room.room_nid, since, last_break)
    found = read_timeline(snapshot, view, since, upto, last_break, rows)
    token = snapshot.request.since
    if since is None and token is not None and found.seen:
        # The client may have some of it, from an earlier stay: it must not add it to what it has.
        is_old = (found.seen[0].row.pos or 0) <= token
        return replace(found, limited=found.limited or is_old)
    return found


def _section(
    snapshot: Snapshot, view: RoomView, timeline: RoomTimeline, rows: Sequence[EventRow]
) -> JsonObject:
    wanted, now_ms = snapshot.request.filter, snapshot.now_ms
    federation = wanted.event_format == "federation"
    relations: dict[str, JsonObject] = {}
    if _may_have_relations(snapshot, view.room.room_nid, timeline):
        relations = aggregations.bundle(
            view, timeline.seen, now_ms, ignored=snapshot.ignored, room_id=False
        )
    shown = view.render(
        timeline.seen, now_ms, room_id=False, federation_format=federation, relations=relations
    )
    states = (
        view.render_state(rows, now_ms, room_id=False, federation_format=federation) if rows else []
    )
    if wanted.event_fields is not None:
        shown = [wanted.trim(event) for event in shown]
        states = [wanted.trim(event) for event in states]
    return {
        "timeline": {
            "events": shown,
            "limited": timeline.limited,
            "prev_batch": timeline.prev_batch,
        },
        "state_after" if snapshot.request.use_state_after else "state": {"events": states},
    }


def _heroes(snapshot: Snapshot, room_nid: int) -> list[str]:
    known = None if snapshot.ahead is None else snapshot.ahead.heroes.get(room_nid)
    if known is not None:
        return known
    return summary.heroes(snapshot.txn, room_nid, snapshot.request.user_id)


def _may_have_relations(snapshot: Snapshot, room_nid: int, timeline: RoomTimeline) -> bool:
    ahead = snapshot.ahead
    ids = sorted(item.row.event_id for item in timeline.seen)
    if ahead is not None and room_nid in ahead.timelines:
        return not ahead.related.isdisjoint(ids)
    if snapshot.shared is None:
        return True
    return bool(snapshot.shared.related(snapshot.txn, ids, snapshot.now))


def _shared_rows(
    snapshot: Snapshot, room_nid: int, since: int, last_break: int | None
) -> Sequence[EventRow] | None:
    """The newest events, as other clients are told them."""
    wanted, after = snapshot.request.filter.room.timeline, first_wanted(since, last_break)
    if snapshot.shared is None or after is None or not wanted.matches_everything:
        return None
    limit = wanted.limit_within(DEFAULT_LIMIT, MAX_LIMIT)
    return snapshot.shared.newest(snapshot.txn, room_nid, after, snapshot.now, limit + 1)


def sticky_events(snapshot: Snapshot, then: RoomThen, rows: Sequence[EventRow]) -> list[JsonObject]:
    """Sticky events in client form: whoever is in the room may see them, whatever the history
    visibility (MSC4354)."""
    view = view_of(snapshot, then.row, then.joined_at)
    seen = [Seen(row, view.event(row), None) for row in rows]
    return view.render(seen, snapshot.now_ms, room_id=False)


def unread(section: JsonObject, counts: Counts, wanted: RoomFilter) -> None:
    """Put the unread counts into the section of a joined room."""
    by_thread = wanted.unread_thread_notifications
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
        if wanted.old_thread_name:
            section[_OLD_THREADS] = section["unread_thread_notifications"]
