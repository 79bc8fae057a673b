"""Rows of events that came from elsewhere: forks, outliers, rejected events."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from homeserver.core import state_tree
from homeserver.core.event import Event
from homeserver.core.types import StateKey
from storage import events, rooms
from storage.events import EventRow
from storage.state import StateStore
from storage.transaction import Transaction

_numbers = itertools.count(1_000_000)


def event_row(event: Event, room_nid: int, **columns: Any) -> EventRow:
    """The row of an event: an outlier unless `columns` say otherwise."""
    values: dict[str, Any] = dict.fromkeys(EventRow._fields)
    values.update(
        event_nid=next(_numbers),
        event_id=event.event_id,
        room_nid=room_nid,
        depth=event.depth,
        type=event.type,
        state_key=event.state_key,
        sender=event.sender,
        origin_server_ts=event.origin_server_ts,
        json=event.to_json().decode(),
        status=events.ACCEPTED,
        contains_url=False,
        notify=0,
        notify_total=0,
        highlight_total=0,
        outgoing=False,
    )
    values.update(columns)
    return EventRow(**values)


def put_event(
    txn: Transaction,
    states: StateStore,
    room_id: str,
    event: Event,
    state: Mapping[StateKey, str],
    *,
    status: int = events.ACCEPTED,
    pos: int | None = None,
) -> None:
    """Store an event of a known room after a state, given by the IDs of stored events.

    It gets a position of its own if it is accepted, unless `pos` is given. The room's head does
    not change.
    """
    room_nid = rooms.nid(txn, room_id)
    assert room_nid is not None
    nids = states.intern(txn, [*state, *([event.key] if event.is_state else [])])
    numbers = {event_id: row.event_nid for event_id, row in _rows(txn, state).items()}
    row = event_row(event, room_nid, status=status)
    entries = {nids[key]: numbers[event_id] for key, event_id in state.items()}
    before, nodes = state_tree.build(entries)
    states.save(txn, room_nid, nodes)
    after = before
    if event.is_state and status == events.ACCEPTED:
        after, nodes = state_tree.build({**entries, nids[event.key]: row.event_nid})
        states.save(txn, room_nid, nodes)
    if pos is None and status == events.ACCEPTED:
        pos = txn.next_pos()
    events.insert(txn, [row._replace(pos=pos, state_before=before, state_after=after)])


def _rows(txn: Transaction, state: Mapping[StateKey, str]) -> dict[str, EventRow]:
    return events.get_many(txn, set(state.values()))
