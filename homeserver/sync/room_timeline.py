"""The timeline of a room in `/sync`: the newest events that the reader may see and wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.core.filters import RoomEventFilter
from homeserver.core.tokens import PaginationToken, SyncToken
from homeserver.rooms.view import RoomView, Seen
from homeserver.sync.request import Snapshot
from storage import timeline
from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.timeline import Place
from storage.transaction import Transaction

DEFAULT_LIMIT = 10
MAX_LIMIT = 1000
_CHUNK = 200
_MAX_CHUNKS = 10
"""How far a filter that lets little through is followed: 2,000 events."""


@dataclass(frozen=True, slots=True)
class RoomTimeline:
    """What was found, oldest first."""

    seen: Sequence[Seen]
    limited: bool
    prev_batch: str
    start: Place | None
    """Right before the first event; None if there are none."""
    start_root: bytes | None
    """The state there."""


def read_timeline(snapshot: Snapshot, view: RoomView, after: int | None, upto: int) -> RoomTimeline:
    """The timeline of a room in `after < pos <= upto`; None: from the room's beginning."""
    wanted = snapshot.request.filter.room.timeline
    limit = wanted.limit_within(DEFAULT_LIMIT, MAX_LIMIT)
    found: list[Seen] = []
    limited = False
    until = upto
    for _ in range(_MAX_CHUNKS):
        size = limit + 1 if wanted.matches_everything else max(limit + 1, _CHUNK)
        rows = _newest(snapshot.txn, view.room.room_nid, after, until, size)
        found += _wanted(snapshot, view, wanted, rows)
        if len(found) > limit:
            limited = True
            break
        if len(rows) < size:
            break
        until = (rows[-1].pos or 0) - 1
    else:
        limited = True
    shown = found[:limit][::-1]
    if not shown:
        return RoomTimeline([], limited, _token_at(snapshot, view, upto), None, None)
    first = shown[0].row
    start = timeline.before(first)
    token = str(PaginationToken(start.depth, start.pos))
    return RoomTimeline(shown, limited, token, start, first.state_before)


def _token_at(snapshot: Snapshot, view: RoomView, upto: int) -> str:
    last = timeline.last_known(snapshot.txn, view.room.room_nid, upto)
    if last is None:
        return str(SyncToken(upto, 0))
    return str(PaginationToken(*timeline.behind(last)))


def _newest(
    txn: Transaction, room_nid: int, after: int | None, upto: int, limit: int
) -> list[EventRow]:
    bound, args = ("", []) if after is None else (" AND pos > ?", [after])
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE room_nid = ? AND pos <= ?{bound}"
        f" AND status = {ACCEPTED} ORDER BY pos DESC LIMIT ?",
        [room_nid, upto, *args, limit],
    )
    return [EventRow(*raw) for raw in rows]


def _wanted(
    snapshot: Snapshot, view: RoomView, wanted: RoomEventFilter, rows: Sequence[EventRow]
) -> list[Seen]:
    ignored = snapshot.ignored
    chosen = [
        row
        for row in rows
        if (row.state_key is not None or row.sender not in ignored)
        and wanted.matches_event(
            row.type,
            row.sender,
            view.room.room_id,
            contains_url=bool(row.contains_url),
            rel_type=row.rel_type,
        )
    ]
    if wanted.needs_relations and chosen:
        pairs = timeline.relation_pairs(snapshot.txn, [row.event_id for row in chosen])
        chosen = [r for r in chosen if wanted.matches_relations(pairs.get(r.event_id, ()))]
    return view.visible(chosen)
