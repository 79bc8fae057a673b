"""Writing what an append transaction built: events, state, projections, heads.

Positions are taken here, and nothing slow happens after: the clock's row stays locked until the
commit, which makes commit order equal position order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from homeserver.core.event import Event
from homeserver.core.types import StateKey
from homeserver.rooms import redact, unread
from homeserver.rooms.draft import RoomDraft
from homeserver.rooms.projection import project_state
from homeserver.rooms.relations import Relation, relation_of
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.rooted import MEMBER, Current, Rooted
from storage import events, outgoing, rooms
from storage.events import ACCEPTED, EventRow
from storage.state import NumberBlocks, StateStore
from storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class WrittenEvent:
    """An event with its place in the log."""

    event: Event
    event_nid: int
    pos: int
    row: EventRow
    replaces: Event | None


@dataclass(frozen=True, slots=True)
class WrittenRoom:
    """What was written to one room."""

    room_nid: int
    room_id: str
    entries: tuple[WrittenEvent, ...]
    is_searchable: bool = False
    """Whether their texts are findable by words already."""


class Index(Protocol):
    """See `homeserver.rooms.searchable.AtOnce`."""

    @property
    def reader(self) -> str | None: ...

    def add(self, txn: Transaction, rows: Iterable[EventRow], /) -> None: ...


Held = Sequence[tuple[str, str]]
"""Redacted events, and the redactions that wait for them."""


def write_drafts(
    txn: Transaction,
    states: StateStore,
    event_numbers: NumberBlocks,
    crowds: unread.Crowds,
    drafts: Sequence[RoomDraft],
) -> list[WrittenRoom]:
    """Insert everything that the drafts added. Must be the transaction's last step."""
    total = sum(len(draft.added) for draft in drafts)
    if not total:
        return []
    judged = unread.judge(txn, crowds, drafts)
    numbers = event_numbers.take(txn, total)
    rooted: list[tuple[RoomDraft, list[Rooted]]] = []
    for draft in drafts:
        own, numbers = numbers[: len(draft.added)], numbers[len(draft.added) :]
        rooted.append((draft, _root(txn, states, draft, own)))
    return insert(txn, states, judged, rooted)


def insert(
    txn: Transaction,
    states: StateStore,
    judged: Mapping[str, unread.Judgement],
    rooms_events: Sequence[tuple[RoomDraft, Sequence[Rooted]]],
    index: Callable[[Iterable[Event]], Index] | None = None,
    held: Held | None = None,
) -> list[WrittenRoom]:
    """Insert events with known roots. Must be the transaction's last step.

    A draft's row has the new head already; its `changed` has the events that the current state
    had before. Returns the accepted events: the others have no place in the timeline. `index`
    makes the texts of events findable, if it can; `held` has all redactions that waited for events
    when the rooms were locked, if at hand.
    """
    items = [item for _, rooted in rooms_events for item in rooted]
    relations = relations_among(txn, [item.event for item in items])
    total = sum(map(_length, items))
    finder = index(item.event for item in items) if index and total and _are_new(items) else None
    reader = finder.reader if finder else None
    pos = txn.next_pos(total, passing=reader) - total if total else 0
    is_searchable = reader is not None and txn.is_passed
    written = []
    rows: list[EventRow] = []
    known: list[EventRow] = []
    for draft, rooted in rooms_events:
        entries = []
        totals = (draft.row.notify_total, draft.row.highlight_total)
        for item in rooted:
            relation = relations.get(item.event.event_id)
            row = _row(draft.row.room_nid, totals, item, relation, judged, pos + 1)
            totals = (row.notify_total, row.highlight_total)
            (known if item.is_known else rows).append(row)
            if row.pos is not None:
                entry = WrittenEvent(item.event, item.event_nid, row.pos, row, item.replaces)
                entries.append(entry)
            pos += _length(item)
        _count(draft, totals)
        if any(map(_length, rooted)):
            draft.row = draft.row._replace(last_pos=pos)
        room_nid, room_id = draft.row.room_nid, draft.row.room_id
        written.append(WrittenRoom(room_nid, room_id, tuple(entries), is_searchable))
    events.insert(txn, rows)
    events.overwrite(txn, known)
    entries = [entry for room in written for entry in room.entries]
    if finder is not None and is_searchable:
        # Before redactions, which take out again what they find.
        finder.add(txn, [entry.row for entry in entries])
    unread.add_marks(txn, [entry.row for entry in entries], judged)
    for (draft, rooted), room in zip(rooms_events, written, strict=True):
        _project(txn, states, draft, rooted, room, held)
        draft.is_new = False
    rooms.put(txn, [draft.row for draft, _ in rooms_events])
    txn.notify(*(f"room:{room.room_nid}" for room in written if room.entries))
    if any(row.outgoing for row in rows + known):
        txn.notify(outgoing.CHANNEL)
    return written


def _are_new(items: Iterable[Rooted]) -> bool:
    return not any(item.is_known for item in items)


def _length(item: Rooted) -> int:
    """How many positions an event takes: the log of memberships has one for each change."""
    return (item.status == ACCEPTED) + len(item.asides)


def _root(
    txn: Transaction, states: StateStore, draft: RoomDraft, numbers: Sequence[int]
) -> list[Rooted]:
    """Number the events and compute the state before and after each."""
    root = draft.row.state_root
    if root is None:
        raise ValueError("the room has no state to build on")
    tree = RoomTree(txn, states, draft.row.room_nid, draft.version)
    rooted = []
    for new, number in zip(draft.added, numbers, strict=True):
        event, before = new.event, root
        changes: dict[StateKey, Current | None] = {}
        if event.is_state:
            root = tree.update(root, {event.key: number})
            changes[event.key] = Current(event, number)
        rooted.append(
            Rooted(
                event,
                number,
                before,
                root,
                root,
                changes,
                transaction=new.transaction,
                replaces=new.replaces,
                outgoing=draft.row.remote_servers > 0 or _concerns_others(event, draft),
            )
        )
    tree.save()
    if root != draft.row.state_root:
        draft.row = draft.row._replace(state_root=root, state_version=draft.row.head_version)
    return rooted


def message_rows(
    draft: RoomDraft, numbers: Sequence[int], judged: Mapping[str, unread.Judgement], first: int
) -> list[EventRow]:
    """The rows of messages that a draft added and that relate to nothing; counts them in its row.

    Parameters: `numbers` of the events; `first`, the position of the first of them.
    """
    root = draft.row.state_root
    if root is None:
        raise ValueError("the room has no state to build on")
    outgoing = draft.row.remote_servers > 0
    rows = []
    totals = (draft.row.notify_total, draft.row.highlight_total)
    for pos, (new, number) in enumerate(zip(draft.added, numbers, strict=True), first):
        item = Rooted(
            new.event, number, root, root, root, {}, transaction=new.transaction, outgoing=outgoing
        )
        row = _row(draft.row.room_nid, totals, item, None, judged, pos)
        totals = (row.notify_total, row.highlight_total)
        rows.append(row)
    _count(draft, totals)
    return rows


def _concerns_others(event: Event, draft: RoomDraft) -> bool:
    return (
        event.type == MEMBER
        and event.state_key is not None
        and not event.state_key.endswith(":" + draft.server_name)
    )


def relations_among(txn: Transaction, added: Sequence[Event]) -> dict[str, Relation]:
    """How new events relate to others, with the thread that each is in."""
    found: dict[str, Relation] = {}
    for event in added:
        relation = relation_of(event)
        if relation is not None:
            found[event.event_id] = relation
    parents = {relation.relates_to for relation in found.values() if relation.thread_root is None}
    threads = events.thread_roots(txn, parents)
    threads |= {name: rel.thread_root for name, rel in found.items() if rel.thread_root}
    return {
        name: relation._replace(thread_root=threads.get(relation.relates_to))
        if relation.thread_root is None
        else relation
        for name, relation in found.items()
    }


def _count(draft: RoomDraft, totals: tuple[int, int]) -> None:
    """Put the running counts of notifying and highlighting events into the draft's row."""
    draft.row = draft.row._replace(notify_total=totals[0], highlight_total=totals[1])


def _row(
    room_nid: int,
    totals: tuple[int, int],
    item: Rooted,
    relation: Relation | None,
    judged: Mapping[str, unread.Judgement],
    pos: int,
) -> EventRow:
    """The row of an event, with the room's running counts, which were `totals` before it."""
    accepted = item.status == ACCEPTED
    notify = int(judged[item.event.event_id].event_class) if accepted else 0
    if relation is None or relation.thread_root is None:
        totals = (totals[0] + (notify > 0), totals[1] + (notify > 1))
    return event_row(
        item, room_nid, pos if accepted else None, relation, notify=notify, totals=totals
    )


def event_row(
    item: Rooted,
    room_nid: int,
    pos: int | None,
    relation: Relation | None,
    *,
    notify: int = 0,
    totals: tuple[int, int] = (0, 0),
) -> EventRow:
    """The row of an event. `totals`: the room's running counts of notifying and highlighting."""
    event, transaction = item.event, item.transaction
    return EventRow(
        event_nid=item.event_nid,
        event_id=event.event_id,
        room_nid=room_nid,
        pos=pos,
        depth=event.depth,
        type=event.type,
        state_key=event.state_key,
        sender=event.sender,
        origin_server_ts=event.origin_server_ts,
        json=federation_text(event),
        status=item.status,
        state_before=item.before,
        state_after=item.after,
        replaces_state=item.replaces.event_id if item.replaces else None,
        redacted_by=None,
        relates_to=relation.relates_to if relation else None,
        rel_type=relation.rel_type if relation else None,
        thread_root=relation.thread_root if relation else None,
        contains_url=isinstance(event.content.get("url"), str),
        notify=notify,
        notify_total=totals[0],
        highlight_total=totals[1],
        txn_device=transaction.device if transaction else None,
        txn_scope=transaction.scope if transaction else None,
        txn_id=transaction.txn_id if transaction else None,
        outgoing=item.outgoing,
    )


def federation_text(event: Event) -> str:
    """The stored form: what was signed."""
    return event.to_json().decode()


def _project(
    txn: Transaction,
    states: StateStore,
    draft: RoomDraft,
    rooted: Sequence[Rooted],
    room: WrittenRoom,
    held: Held | None,
) -> None:
    """Keep the projections of current state and of memberships, and what else follows events."""
    project_state(txn, draft, rooted, room.entries[0].pos if room.entries else draft.row.last_pos)
    for entry in room.entries:
        if entry.event.redacts is not None:
            redact.apply(txn, states, entry.event, entry.row)
            draft.known.clear()
            held = None  # It may wait for another one.
    added = [entry.event.event_id for entry in room.entries]
    for redactions in events.held_redactions(txn, added, held).values():
        for redaction_id in redactions:
            redact.apply_held(txn, states, room.room_nid, redaction_id, draft.version)
            draft.known.clear()
