"""Why a room's state is what it is: the resolution of a fork, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from homeserver.core.errors import not_found, unknown
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.state_sets import Step
from homeserver.core.types import StateKey
from homeserver.rooms.room_tree import RoomTree
from storage import events, rooms
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

_LOOK_BACK = 5000
"""Among so many of the newest events the last merge of branches is looked for."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One side of a fork: its last event, and what it has under the conflicted keys."""

    event_id: str
    state: dict[StateKey, str]


@dataclass(slots=True)
class Explanation:
    """A resolution. `merged_by` is the event that joined the branches; None: none has yet."""

    room_id: str
    version: str
    merged_by: str | None
    branches: list[Branch]
    steps: list[Step] = field(default_factory=list)
    result: dict[StateKey, str | None] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The explanation as text."""
        where = "at the head of the room" if self.merged_by is None else f"before {self.merged_by}"
        text = [f"Room {self.room_id}, version {self.version}: the state {where}."]
        if len(self.branches) < 2:
            return [*text, "There is no fork: nothing had to be resolved."]
        text.append(f"The fork: {len(self.branches)} branches with different states.")
        for number, branch in enumerate(self.branches, 1):
            text.append(f"  branch {number} ends with {branch.event_id}")
        text.append("The conflicted sets:")
        for key in sorted(self.result):
            text.append(f"  {_key(key)}")
            for number, branch in enumerate(self.branches, 1):
                text.append(f"    branch {number}: {branch.state.get(key, '-')}")
        if self.steps:
            text.append("The order in which events were tried:")
        for number, step in enumerate(self.steps, 1):
            outcome = "applied" if step.refusal is None else f"refused: {step.refusal}"
            text.append(
                f"  {number}. {step.event.event_id} {_key(step.event.key)}"
                f" by {step.event.sender} [{step.phase}] {outcome}"
            )
        text.append("The result:")
        text += [f"  {_key(key)}: {self.result[key] or '-'}" for key in sorted(self.result)]
        return text


def explain(
    txn: Transaction, states: StateStore, room_id: str, event_id: str | None = None
) -> Explanation:
    """The resolution of the states before an event.

    Parameters: `event_id`, the event; None: the head of the room if it is forked, or else the
    last event that joined branches with different states.

    Raises:
        MatrixError: 404 `M_NOT_FOUND` for an unknown room or event.
    """
    room = rooms.get(txn, room_id)
    if room is None or room.state_root is None or room.version not in ROOM_VERSIONS:
        raise not_found("This room is not known here.")
    version = ROOM_VERSIONS[room.version]
    if event_id is not None:
        row = events.get(txn, event_id)
        if row is None or row.room_nid != room.room_nid or row.state_before is None:
            raise not_found(f"{event_id} is not known in this room.")
        return _of_event(txn, states, room, version, row)
    head = list(events.get_many(txn, room.extremities).values())
    if len(_roots(head)) > 1:
        return _explained(txn, states, room, version, head, None)
    merge = _last_merge(txn, room, version)
    if merge is None:
        return Explanation(room_id, room.version, None, [])
    return _of_event(txn, states, room, version, merge)


def _of_event(
    txn: Transaction, states: StateStore, room: RoomRow, version: RoomVersion, row: EventRow
) -> Explanation:
    event = Event.from_json(row.json, version, row.event_id)
    previous = list(events.get_many(txn, event.prev_event_ids).values())
    if len(previous) < len(set(event.prev_event_ids)):
        raise unknown(
            f"Predecessors of {row.event_id} are not here: its state was given by others."
        )
    return _explained(txn, states, room, version, previous, row.event_id)


def _last_merge(txn: Transaction, room: RoomRow, version: RoomVersion) -> EventRow | None:
    """The newest event whose predecessors had different states."""
    rows = [
        EventRow(*raw)
        for raw in txn.all(
            f"SELECT {events.COLUMNS} FROM events WHERE room_nid = ? AND pos IS NOT NULL"
            " ORDER BY pos DESC LIMIT ?",
            (room.room_nid, _LOOK_BACK),
        )
    ]
    for row in rows:
        event = Event.from_json(row.json, version, row.event_id)
        if len(event.prev_event_ids) > 1:
            previous = events.get_many(txn, event.prev_event_ids)
            if len(_roots(list(previous.values()))) > 1:
                return row
    return None


def _roots(rows: Sequence[EventRow]) -> dict[bytes, EventRow]:
    """One event for each of the different states after these events."""
    ordered = sorted(rows, key=lambda row: row.event_id)
    return {row.state_after: row for row in ordered if row.state_after is not None}


def _explained(
    txn: Transaction,
    states: StateStore,
    room: RoomRow,
    version: RoomVersion,
    previous: Sequence[EventRow],
    merged_by: str | None,
) -> Explanation:
    tree = RoomTree(txn, states, room.room_nid, version)
    ends = _roots(previous)
    roots = sorted(ends)
    keys, sets = tree.conflicts(roots)
    branches = [Branch(ends[root].event_id, found) for root, found in zip(roots, sets, strict=True)]
    made = Explanation(room.room_id, room.version, merged_by, branches)
    resolved = tree.resolve_conflicts(roots, keys, sets, made.steps)
    found = tree.state(resolved, keys)
    made.result = {key: found[key].event_id if key in found else None for key in keys}
    return made


def _key(key: StateKey) -> str:
    return f"{key[0]} {key[1]!r}" if key[1] else key[0]
