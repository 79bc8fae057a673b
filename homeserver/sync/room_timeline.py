"""The timeline of a room in `/sync`: the newest events that the reader may see and wants.

Events come in the order in which this server got them. `prev_batch` is where `/messages` goes on
backwards, without leaving anything out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.core.filters import RoomEventFilter
from homeserver.core.tokens import PaginationToken, SyncToken
from homeserver.core.types import StateKey
from homeserver.rooms.view import RoomView, Seen
from homeserver.sync.request import Snapshot
from storage import timeline
from storage.events import EventRow
from storage.timeline import EVERYTHING, Wanted

DEFAULT_LIMIT = 10
MAX_LIMIT = 1000
_CHUNK = 200
_MAX_CHUNKS = 10
"""How far a filter that lets little through is followed: 2,000 events that the database gives."""
_WINDOW = 10_000
"""Among how many events the database looks for those that a filter wants."""


@dataclass(frozen=True, slots=True)
class RoomTimeline:
    """What was found, oldest first."""

    seen: Sequence[Seen]
    limited: bool
    prev_batch: str
    start_root: bytes | None
    """The state before the first event; None if there are no events."""


def read_timeline(
    snapshot: Snapshot,
    view: RoomView,
    after: int | None,
    upto: int,
    last_break: int | None = None,
    rows: Sequence[EventRow] | None = None,
) -> RoomTimeline:
    """The timeline of a room in `after < pos <= upto`; None: from the room's beginning.

    Parameters: `last_break`, the last position up to `upto` before which something is missing:
    the timeline begins there, so that the client asks for it; `rows`, the newest events if they
    were read already, one more than the limit, newest first (`first_wanted` says after which).
    """
    start = after
    after = first_wanted(after, last_break)
    is_cut = after != start
    wanted = snapshot.request.filter.room.timeline
    limit = wanted.limit_within(DEFAULT_LIMIT, MAX_LIMIT)
    shown: list[Seen] = []
    limited = False
    if not wanted.matches_nothing:
        shown, limited = _collect(snapshot, view, after, upto, limit, rows)
        limited = limited or is_cut
    if not shown:
        return RoomTimeline([], limited, str(SyncToken(max(upto, 0), 0)), None)
    first = shown[0].row
    if rows is not None and (first.pos or 0) > 0:
        # The position always says it; the other form of token would take one more statement.
        token = str(SyncToken((first.pos or 0) - 1, 0))
    else:
        token = _token_before(snapshot, first)
    return RoomTimeline(shown, limited, token, first.state_before)


def first_wanted(after: int | None, last_break: int | None) -> int | None:
    """The position after which a timeline begins that is wanted from `after` on."""
    if last_break is not None and (after is None or after < last_break):
        return last_break - 1
    return after


def without_overtaken(
    snapshot: Snapshot, view: RoomView, found: RoomTimeline, end: bytes | None
) -> RoomTimeline:
    """The timeline from where on it shows the last change of each state key that it shows.

    Clients apply the timeline after `state`. Where it showed an older change of a key and not the
    newest, because that is filtered out or not visible, or because resolution of the room's state
    undid it, they would be left with the older one.

    Parameters: `end`, the root of the state at the timeline's end.
    """
    last: dict[StateKey, int] = {
        (item.row.type, item.row.state_key): number
        for number, item in enumerate(found.seen)
        if item.row.state_key is not None
    }
    if not last or end is None:
        return found
    now = view.numbers(end, last.keys())
    overtaken = [
        place for key, place in last.items() if found.seen[place].row.event_nid != now.get(key)
    ]
    if not overtaken:
        return found
    cut = max(overtaken)
    rest = found.seen[cut + 1 :]
    if not rest:
        return RoomTimeline([], True, str(SyncToken(found.seen[cut].row.pos or 0, 0)), None)
    first = rest[0].row
    return RoomTimeline(rest, True, _token_before(snapshot, first), first.state_before)


def _collect(
    snapshot: Snapshot,
    view: RoomView,
    after: int | None,
    upto: int,
    limit: int,
    known: Sequence[EventRow] | None,
) -> tuple[list[Seen], bool]:
    """The newest events, at most `limit`, oldest first, and whether there are more."""
    txn, room_nid = snapshot.txn, view.room.room_nid
    wanted = snapshot.request.filter.room.timeline
    only = _in_sql(wanted)
    cut = None
    if only is not EVERYTHING and after is None:
        cut = after = timeline.nth_newest(txn, room_nid, upto, _WINDOW)
    size = limit + 1 if wanted.matches_everything else max(limit + 1, _CHUNK)
    found: list[Seen] = []
    for _ in range(_MAX_CHUNKS):
        if known is None:
            rows = timeline.newest(txn, room_nid, after, upto, size, only)
        else:
            rows, known = list(known), None
        found += _wanted(snapshot, view, wanted, rows)
        if len(found) > limit:
            return found[:limit][::-1], True
        if len(rows) < size:
            return found[::-1], cut is not None
        upto = (rows[-1].pos or 0) - 1
    return found[::-1], True


def _in_sql(wanted: RoomEventFilter) -> Wanted:
    """What the database can decide of a filter."""
    types = wanted.types
    exact = types.exact if types is not None and not types.wildcards else None
    if exact is None and wanted.senders is None and wanted.contains_url is None:
        return EVERYTHING
    return Wanted(exact, wanted.senders, wanted.contains_url)


def _token_before(snapshot: Snapshot, first: EventRow) -> str:
    """The token of what this server knew before an event.

    In the order of the graph that is everything before the event, unless branches of the graph
    came late: then the position has to say it.
    """
    pos = first.pos or 0
    if pos > 0 and timeline.has_deeper(snapshot.txn, first.room_nid, first.depth, pos):
        return str(SyncToken(pos - 1, 0))
    return str(PaginationToken(*timeline.before(first)))


def _wanted(
    snapshot: Snapshot, view: RoomView, wanted: RoomEventFilter, rows: Sequence[EventRow]
) -> list[Seen]:
    ignored = snapshot.ignored
    if ignored:
        rows = [row for row in rows if row.state_key is not None or row.sender not in ignored]
    if not wanted.matches_everything:
        room_id = view.room.room_id
        rows = [
            row
            for row in rows
            if wanted.matches_event(
                row.type,
                row.sender,
                room_id,
                contains_url=bool(row.contains_url),
                rel_type=row.rel_type,
            )
        ]
        if wanted.needs_relations and rows:
            pairs = timeline.relation_pairs(snapshot.txn, [row.event_id for row in rows])
            rows = [row for row in rows if wanted.matches_relations(pairs.get(row.event_id, ()))]
    return view.visible(rows)
