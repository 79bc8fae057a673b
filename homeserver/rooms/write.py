"""Writing what an append transaction built: events, state, projections, heads.

Positions are taken here, and nothing slow happens after: the clock's row stays locked until the
commit, which makes commit order equal position order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeserver.core import canonical, state_tree
from homeserver.core.client_format import stripped_state
from homeserver.core.event import Event
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms import redact, unread
from homeserver.rooms.draft import NewEvent, RoomDraft
from homeserver.rooms.relations import Relation, relation_of
from storage import events, memberships, rooms, state
from storage.events import ACCEPTED, EventRow
from storage.state import NumberBlocks, StateStore
from storage.transaction import Transaction

STRIPPED_TYPES = (
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.name",
    "m.room.encryption",
    "m.room.topic",
    "m.room.history_visibility",
)
"""Types of the stripped state of invites and knocks (client-server API, "Stripped state")."""


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


@dataclass(slots=True)
class _Rooted:
    """A new event with its number and the states around it."""

    new: NewEvent
    event_nid: int
    before: bytes
    after: bytes


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
    rooted: list[tuple[RoomDraft, list[_Rooted]]] = []
    for draft in drafts:
        own, numbers = numbers[: len(draft.added)], numbers[len(draft.added) :]
        rooted.append((draft, _root(txn, states, draft, own)))
    relations = _relations(txn, drafts)
    pos = txn.next_pos(total) - total
    written = []
    for draft, entries in rooted:
        room = _place(draft, entries, relations, judged, pos)
        pos += len(entries)
        written.append(room)
    rows = [entry.row for room in written for entry in room.entries]
    events.insert(txn, rows)
    unread.add_marks(txn, rows, judged)
    for draft, room in zip(drafts, written, strict=True):
        _project(txn, states, draft, room)
        draft.is_new = False
    rooms.put(txn, [draft.row for draft in drafts])
    txn.notify(*(f"room:{room.room_nid}" for room in written))
    return written


def _root(
    txn: Transaction, states: StateStore, draft: RoomDraft, numbers: Sequence[int]
) -> list[_Rooted]:
    """Number the events and compute the state before and after each."""
    root = draft.row.state_root
    if root is None:
        raise ValueError("the room has no state to build on")
    keys = [new.event.key for new in draft.added if new.event.is_state]
    nids = states.intern(txn, set(keys)) if keys else {}
    stored = states.loader(txn, draft.row.room_nid)
    fresh: dict[bytes, bytes] = {}

    def load(hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        missing = [name for name in hashes if name not in fresh]
        found = dict(stored(missing)) if missing else {}
        return found | {name: fresh[name] for name in hashes if name in fresh}

    rooted = []
    for new, number in zip(draft.added, numbers, strict=True):
        before = root
        if new.event.is_state:
            root, nodes = state_tree.update(root, {nids[new.event.key]: number}, load)
            fresh |= nodes
        rooted.append(_Rooted(new, number, before, root))
    states.save(txn, draft.row.room_nid, fresh)
    if root != draft.row.state_root:
        draft.row = draft.row._replace(state_root=root, state_version=draft.row.head_version)
    return rooted


def _relations(txn: Transaction, drafts: Sequence[RoomDraft]) -> dict[str, Relation]:
    """How the new events relate to others, with the thread that each is in."""
    found: dict[str, Relation] = {}
    for draft in drafts:
        for new in draft.added:
            relation = relation_of(new.event)
            if relation is not None:
                found[new.event.event_id] = relation
    parents = {relation.relates_to for relation in found.values() if relation.thread_root is None}
    threads = events.thread_roots(txn, parents)
    threads |= {name: rel.thread_root for name, rel in found.items() if rel.thread_root}
    return {
        name: relation._replace(thread_root=threads.get(relation.relates_to))
        if relation.thread_root is None
        else relation
        for name, relation in found.items()
    }


def _place(
    draft: RoomDraft,
    rooted: Sequence[_Rooted],
    relations: Mapping[str, Relation],
    judged: Mapping[str, unread.Judgement],
    pos: int,
) -> WrittenRoom:
    """Give the events of one room their positions and running counts."""
    row = draft.row
    notify_total, highlight_total = row.notify_total, row.highlight_total
    entries = []
    for offset, item in enumerate(rooted, 1):
        event = item.new.event
        relation = relations.get(event.event_id)
        notify = int(judged[event.event_id].event_class)
        if relation is None or relation.thread_root is None:
            notify_total += notify > 0
            highlight_total += notify > 1
        transaction = item.new.transaction
        entries.append(
            WrittenEvent(
                event,
                item.event_nid,
                pos + offset,
                EventRow(
                    event_nid=item.event_nid,
                    event_id=event.event_id,
                    room_nid=row.room_nid,
                    pos=pos + offset,
                    depth=event.depth,
                    type=event.type,
                    state_key=event.state_key,
                    sender=event.sender,
                    origin_server_ts=event.origin_server_ts,
                    json=federation_text(event),
                    status=ACCEPTED,
                    state_before=item.before,
                    state_after=item.after,
                    replaces_state=item.new.replaces.event_id if item.new.replaces else None,
                    redacted_by=None,
                    relates_to=relation.relates_to if relation else None,
                    rel_type=relation.rel_type if relation else None,
                    thread_root=relation.thread_root if relation else None,
                    contains_url=isinstance(event.content.get("url"), str),
                    notify=notify,
                    notify_total=notify_total,
                    highlight_total=highlight_total,
                    txn_device=transaction.device if transaction else None,
                    txn_scope=transaction.scope if transaction else None,
                    txn_id=transaction.txn_id if transaction else None,
                    outgoing=False,
                ),
                item.new.replaces,
            )
        )
    draft.row = row._replace(
        notify_total=notify_total, highlight_total=highlight_total, last_pos=pos + len(rooted)
    )
    return WrittenRoom(row.room_nid, row.room_id, tuple(entries))


def federation_text(event: Event) -> str:
    """The stored form: what was signed."""
    strict = event.version.strict_canonical_json
    encode = canonical.encode if strict else canonical.encode_lenient
    return encode(event.pdu).decode()


def _project(txn: Transaction, states: StateStore, draft: RoomDraft, room: WrittenRoom) -> None:
    """Keep the projections of current state and of memberships, and what else follows events."""
    last: dict[StateKey, WrittenEvent] = {}
    for entry in room.entries:
        if entry.event.is_state:
            last[entry.event.key] = entry
            state.record_root(txn, room.room_nid, entry.pos, entry.row.state_after or b"")
    if last:
        state.put_current(
            txn, room.room_nid, [(key, entry.event_nid) for key, entry in last.items()]
        )
        _project_members(txn, draft, room, last)
    for entry in room.entries:
        if entry.event.redacts is not None:
            redact.apply(txn, states, entry.event, entry.row)
            draft.known.clear()
    held = events.held_redactions(txn, [entry.event.event_id for entry in room.entries])
    for redactions in held.values():
        for redaction_id in redactions:
            redact.apply_held(txn, states, room.room_nid, redaction_id, draft.version)
            draft.known.clear()


def _project_members(
    txn: Transaction, draft: RoomDraft, room: WrittenRoom, last: Mapping[StateKey, WrittenEvent]
) -> None:
    log = []
    previous: dict[str, str] = {}
    for entry in room.entries:
        event = entry.event
        if event.type != "m.room.member" or event.state_key is None:
            continue
        user_id = event.state_key
        if user_id not in previous:
            old = draft.changed.get(event.key)
            previous[user_id] = (old.membership if old else None) or "leave"
        membership = event.membership or "leave"
        log.append(
            memberships.MembershipChange(
                entry.pos,
                room.room_nid,
                user_id,
                membership,
                previous[user_id],
                entry.event_nid,
                event.event_id,
                event.sender,
            )
        )
        previous[user_id] = membership
    if not log:
        return
    memberships.log(txn, log)
    rows = [_member_row(draft, room, last[("m.room.member", user_id)]) for user_id in previous]
    memberships.put(txn, rows)
    txn.notify(*(f"user:{row.user_id}" for row in rows if row.is_local))


def _member_row(
    draft: RoomDraft, room: WrittenRoom, entry: WrittenEvent
) -> memberships.MembershipRow:
    event = entry.event
    user_id = event.state_key or ""
    membership = event.membership or "leave"
    is_local = user_id.endswith(":" + draft.server_name)
    stripped = None
    if is_local and membership in ("invite", "knock"):
        stripped = canonical.encode_lenient({"s": _stripped(draft, event)})[5:-1].decode()
    return memberships.MembershipRow(
        room_nid=room.room_nid,
        user_id=user_id,
        membership=membership,
        event_id=event.event_id,
        event_nid=entry.event_nid,
        sender=event.sender,
        pos=entry.pos,
        is_local=is_local,
        forgotten=False,
        displayname=_text(event.content.get("displayname")),
        avatar_url=_text(event.content.get("avatar_url")),
        stripped_state=stripped,
    )


def _stripped(draft: RoomDraft, event: Event) -> list[JsonObject]:
    keys: list[StateKey] = [(event_type, "") for event_type in STRIPPED_TYPES]
    keys.append(("m.room.member", event.sender))
    keys.append(event.key)
    found = draft.state(keys)
    return [stripped_state(found[key]) for key in dict.fromkeys(keys) if key in found]


def _text(value: object) -> str | None:
    # PostgreSQL has no NUL in text, and a name may be any JSON value that somebody sent.
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else None
