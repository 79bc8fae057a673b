"""Sticky events in sync (MSC4354): those that are new to the client, wherever the timeline begins.

Who enters a room gets all that are sticky then; otherwise the oldest come first, and the token
says up to where they were given out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from homeserver.core import sticky
from homeserver.sync.request import Snapshot, SyncRequest
from storage import events, sticky_events
from storage.events import EventRow
from storage.sticky_events import StickyRow
from storage.user_news import is_after

LIMIT = 200
"""Events in one answer, those of newly entered rooms aside."""


class Stuck(NamedTuple):
    """Events by the number of their room, the oldest first; `reached`: there are more after this
    position."""

    rooms: Mapping[int, list[EventRow]]
    reached: int | None


NOTHING = Stuck({}, None)


def is_behind(request: SyncRequest) -> bool:
    """Whether the client has not got all sticky events up to its token."""
    since, sticky_since = request.since, request.sticky_since
    return since is not None and sticky_since is not None and sticky_since < since


def find(snapshot: Snapshot, rooms: Collection[int], newly: Collection[int]) -> Stuck:
    """Sticky events of rooms that are new to the client of a `/sync`. `newly`: the rooms of which
    it knows nothing."""
    request = snapshot.request
    since = request.since if request.sticky_since is None else request.sticky_since
    if snapshot.newest.sticky is None or not (newly or is_after(snapshot.newest.sticky, since)):
        return NOTHING
    return read(snapshot, since, rooms, newly, LIMIT)


def read(
    snapshot: Snapshot,
    since: int | None,
    rooms: Collection[int],
    newly: Collection[int],
    limit: int,
) -> Stuck:
    """As `find`, from a position on (None: from the first)."""
    txn, now, now_ms = snapshot.txn, snapshot.now, snapshot.now_ms
    user_id, after = snapshot.request.user_id, since or 0
    found = sticky_events.of_user(txn, user_id, after, now, now_ms, limit + 1)
    reached = found[limit - 1].pos if len(found) > limit else None
    found = found[:limit]
    if since is not None and newly:
        found = sticky_events.of_rooms(txn, newly, min(since, now), now_ms) + found
    return Stuck(_load(snapshot, [row for row in found if row.room_nid in rooms]), reached)


def _load(snapshot: Snapshot, rows: Collection[StickyRow]) -> dict[int, list[EventRow]]:
    wanted = [row for row in rows if row.sender not in snapshot.ignored]
    loaded = events.get_by_nids(snapshot.txn, [row.event_nid for row in wanted])
    found: dict[int, list[EventRow]] = {}
    for each in wanted:
        row = loaded.get(each.event_nid)
        # What was redacted as it came is not sticky.
        if row is not None and f'"{sticky.KEY}"' in row.json:
            found.setdefault(each.room_nid, []).append(row)
    return found
