"""Entering a room that other servers keep, with the state that one of them gave.

Server-Server API, "Joining Rooms". The state before the join is taken over as it is, once its
events have been judged by their own auth events; then the join is judged by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from homeserver.core import auth_rules, state_tree
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import StateKey
from homeserver.rooms import unread
from homeserver.rooms.commit import AppendContext, draft_of
from homeserver.rooms.draft import CREATE, NewEvent, RoomDraft
from homeserver.rooms.judged import Judged
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.rooted import Current, Rooted
from homeserver.rooms.write import WrittenRoom, insert
from storage import events, gaps, partial_rooms, room_servers, rooms
from storage.events import ACCEPTED, REJECTED
from storage.gaps import Gap
from storage.partial_rooms import PartialRoom
from storage.rooms import RoomRow
from storage.transaction import Transaction

_UNUSABLE = (None, REJECTED)
"""What this server soft-failed or misplaced while it was in the room earlier may be in force."""


class BadState(Exception):
    """The state that a server gave cannot be that of the room; says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one enters a room by.

    Parameters:
        join: the join of a user of this server.
        state: the state before it.
        auth_chain: auth events of all that, whatever `state` has not.
        servers: the other servers in the room, where `state` leaves members out.
        partial: whether it does.
    """

    join: Event
    version: RoomVersion
    state: Sequence[Event]
    auth_chain: Sequence[Event]
    servers: Collection[str] | None
    partial: bool = False


def adopt(
    txn: Transaction, context: AppendContext, entry: Entry, now_ms: int
) -> tuple[Judged, list[WrittenRoom]]:
    """Write a room that this server enters. Raises BadState."""
    join = entry.join
    draft = open_room(txn, context, join.room_id, entry.version, now_ms)
    row = draft.row
    tree = RoomTree(txn, context.states, row.room_nid, entry.version)
    outliers = Outliers(txn, row.room_nid, tree, context.event_numbers, draft.server_name)
    outliers.add([*entry.auth_chain, *entry.state])
    before = tree.build(_state_numbers(entry.state, outliers, tree))
    _check(join, before, tree, outliers)
    number = tree.number_of(join.event_id)
    is_known = number is not None
    if number is None:
        number = context.event_numbers.take(txn, 1)[0]
    tree.add(join, number)
    replaces = tree.state(before, [join.key]).get(join.key)
    after = tree.update(before, {join.key: number})
    changes = change_state(draft, tree, tree.diff(row.state_root or state_tree.EMPTY, after))
    draft.added.append(NewEvent(join, None, replaces))
    draft.row = row._replace(
        head_version=row.head_version + 1,
        depth=join.depth,
        extremities=(join.event_id,),
        state_root=after,
        state_version=row.head_version + 1,
    )
    rooted = Rooted(
        join,
        number,
        before,
        after,
        after,
        changes,
        replaces=replaces,
        is_known=is_known,
        logged=":" + draft.server_name,
    )
    tree.save()
    has_gap = _note_gaps(txn, row.room_nid, join)
    if entry.partial:
        partial_rooms.put(txn, PartialRoom(row.room_nid, join.event_id, now_ms))
    else:
        partial_rooms.remove(txn, row.room_nid)
    judged = unread.judge(txn, context.crowds, [draft])
    written = insert(txn, context.states, judged, [(draft, [rooted])])
    if entry.partial and entry.servers is not None:
        servers = {name: 1 for name in entry.servers if name != draft.server_name}
        room_servers.put(txn, row.room_nid, servers)
        rooms.put(txn, [draft.row._replace(remote_servers=len(servers))])
    pos = written[0].entries[0].pos
    if has_gap:
        gaps.add_breaks(txn, row.room_nid, [pos])
    return Judged(join.event_id, ACCEPTED, pos=pos, is_new=not is_known), written


def open_room(
    txn: Transaction, context: AppendContext, room_id: str, version: RoomVersion, now_ms: int
) -> RoomDraft:
    """A room of other servers, locked; made if it is not known, without a head.

    Raises BadState if this server was in it and knows it with another version.
    """
    row = rooms.lock(txn, [room_id]).get(room_id)
    if row is None:
        row = RoomRow(
            room_nid=context.room_numbers.take(txn, 1)[0],
            room_id=room_id,
            version=version.identifier,
            head_version=0,
            depth=0,
            extremities=(),
            state_root=None,
            state_version=0,
            notify_total=0,
            highlight_total=0,
            last_pos=0,
            created_ts=now_ms,
            remote_servers=0,
        )
        rooms.put(txn, [row])
    elif row.version != version.identifier and row.state_root is None:
        # Only an invite told of the room so far, and anybody can say anything in one.
        rooms.set_version(txn, row.room_nid, version.identifier)
        row = row._replace(version=version.identifier)
    elif row.version != version.identifier:
        raise BadState(f"The room is of version {row.version}, not {version.identifier}.")
    return draft_of(txn, context, row, version, {})


def _state_numbers(
    state: Sequence[Event], outliers: Outliers, tree: RoomTree
) -> dict[StateKey, int]:
    """The state as it can be taken over: without what its own auth events forbid."""
    found: dict[StateKey, Event] = {}
    for event in state:
        if not event.is_state or outliers.status(event.event_id) in _UNUSABLE:
            continue
        if found.setdefault(event.key, event) != event:
            raise BadState(f"The state has two events of type {event.type}.")
    if CREATE not in found:
        raise BadState("The state has no create event.")
    numbers = tree.numbers_of([event.event_id for event in found.values()])
    return {key: numbers[event.event_id] for key, event in found.items()}


def _check(join: Event, before: bytes, tree: RoomTree, outliers: Outliers) -> None:
    """Judge the join by its auth events and by the state before it."""
    create = tree.state(before, [CREATE])[CREATE]
    named = list(tree.event_map(join.auth_event_ids).values())
    if len(named) < len(set(join.auth_event_ids)):
        raise BadState("Auth events of the join are missing.")
    keys = auth_rules.auth_types(join.type, join.sender, join.state_key, join.content, join.version)
    try:
        auth_rules.check_auth_events(
            join, named, lambda name: outliers.status(name) in _UNUSABLE, create
        )
        auth_rules.check(join, {event.key: event for event in named}, create=create)
        auth_rules.check(join, tree.state(before, {*keys, CREATE}), create=create)
    except auth_rules.EventRejected as refusal:
        raise BadState(f"The join is not allowed: {refusal.reason}") from None


def change_state(
    draft: RoomDraft,
    tree: RoomTree,
    differences: Mapping[StateKey, tuple[int | None, int | None]],
) -> dict[StateKey, Current | None]:
    """What a room's current state becomes by differences (see `RoomTree.diff`); the draft is
    told."""
    numbers = {number for pair in differences.values() for number in pair if number is not None}
    found = tree.events_of(numbers)
    changes: dict[StateKey, Current | None] = {}
    changed, known = draft.changed, draft.known
    for key, (old_number, new_number) in differences.items():
        changed[key] = found[old_number] if old_number is not None else None
        if new_number is None:
            known[key] = changes[key] = None
        else:
            known[key] = event = found[new_number]
            changes[key] = Current(event, new_number)
    return changes


def _note_gaps(txn: Transaction, room_nid: int, join: Event) -> bool:
    """Note which predecessors of the join are missing; whether any are."""
    rows = events.get_many(txn, join.prev_event_ids)
    missing = [
        name for name in join.prev_event_ids if name not in rows or rows[name].state_after is None
    ]
    gaps.add(txn, room_nid, [Gap(name, join.event_id, join.depth) for name in missing])
    return bool(missing)
