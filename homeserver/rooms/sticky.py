"""Keeping sticky events (MSC4354), in the transaction that adds them to their room.

A soft-failed one is kept too, and told of once its sender's membership has changed such that the
current state allows it. What a policy server does not recommend is not sticky.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from homeserver.core import auth_rules, sticky
from homeserver.core.event import Event
from homeserver.core.policy import is_recommended
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.rooms.draft import CREATE
from homeserver.rooms.receiving import Receiving
from homeserver.rooms.write import WrittenEvent, WrittenRoom
from storage import events, rooms, state, sticky_events
from storage.events import SOFT_FAILED
from storage.sticky_events import StickyRow
from storage.transaction import Transaction

MAX_EACH = 500
"""Sticky events of one user in one room; what comes above is an ordinary event."""
_MEMBER = "m.room.member"


def keep(txn: Transaction, written: Sequence[WrittenRoom], now_ms: int) -> None:
    """Keep the sticky ones of events that were added."""
    for room in written:
        found = [
            StickyRow(entry.event_nid, room.room_nid, entry.event.sender, entry.pos, end)
            for entry in room.entries
            if (end := _end(entry.event, now_ms)) is not None
        ]
        if found:
            _add(txn, room.room_nid, found)


def keep_received(
    txn: Transaction, receiving: Receiving, written: Sequence[WrittenRoom], now_ms: int
) -> None:
    """As `keep`, for events of other servers, and for those that were kept before."""
    keep(txn, written, now_ms)
    room_nid, policy = receiving.draft.row.room_nid, receiving.policy
    refused = [
        StickyRow(item.event_nid, room_nid, item.event.sender, None, end)
        for item in receiving.rooted
        if item.status == SOFT_FAILED
        and (end := _end(item.event, now_ms)) is not None
        and (policy is None or is_recommended(item.event, policy))
    ]
    if refused:
        _add(txn, room_nid, refused)
    for room in written:
        moved = [entry for entry in room.entries if entry.event.type == _MEMBER]
        if moved:
            _judge_again(txn, room, moved, now_ms)


def _end(event: Event, now_ms: int) -> int | None:
    if sticky.KEY not in event.pdu:
        return None
    end = sticky.end_of(event.pdu, now_ms)
    return end if end is not None and end > now_ms else None


def _add(txn: Transaction, room_nid: int, rows: Sequence[StickyRow]) -> None:
    counts = Counter(sticky_events.count_by_sender(txn, room_nid, {row.sender for row in rows}))
    kept = []
    for row in rows:
        counts[row.sender] += 1
        if counts[row.sender] <= MAX_EACH:
            kept.append(row)
    sticky_events.add(txn, kept)


def _judge_again(
    txn: Transaction, room: WrittenRoom, moved: Sequence[WrittenEvent], now_ms: int
) -> None:
    """Have clients told of soft-failed events whose senders may send them by now."""
    senders = {entry.event.state_key or "" for entry in moved}
    held = sticky_events.held(txn, room.room_nid, senders, now_ms)
    if not held:
        return
    row = rooms.get_many(txn, [room.room_nid])[room.room_nid]
    rows = events.get_by_nids(txn, [each.event_nid for each in held])
    version = ROOM_VERSIONS[row.version]
    allowed = [
        each
        for each in held
        if each.event_nid in rows
        and _is_allowed(
            txn,
            room.room_nid,
            Event.from_json(rows[each.event_nid].json, version, rows[each.event_nid].event_id),
        )
    ]
    sticky_events.add(txn, [each._replace(pos=moved[-1].pos) for each in allowed])


def _is_allowed(txn: Transaction, room_nid: int, event: Event) -> bool:
    """Whether the room's current state allows an event."""
    keys = auth_rules.auth_types(
        event.type, event.sender, event.state_key, event.content, event.version
    )
    found = {
        key: Event.from_json(row.json, event.version, row.event_id)
        for key, row in state.current(txn, room_nid, [*keys, CREATE]).items()
    }
    try:
        auth_rules.check(event, found, create=found.get(CREATE))
    except auth_rules.EventRejected:
        return False
    return True
