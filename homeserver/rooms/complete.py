"""The whole state of a room that was entered without its members, put behind the join.

Server-Server API, `PUT /send_join` with `omit_members`. The states of what came after the join are
computed anew, by the events that came; what the whole state forbids of it counts no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from homeserver.core import auth_rules
from homeserver.core.event import Event
from homeserver.core.graph import topological_order
from homeserver.core.ids import domain_of
from homeserver.core.types import StateKey
from homeserver.rooms.adopt import change_state
from homeserver.rooms.commit import AppendContext, open_draft
from homeserver.rooms.draft import CREATE, RoomDraft
from homeserver.rooms.judged import KnownState
from homeserver.rooms.projection import project_state
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.rooted import Current, Rooted
from storage import events, partial_rooms, residence, room_servers, rooms
from storage.events import ACCEPTED, MISPLACED, SOFT_FAILED, EventRow
from storage.transaction import Transaction


class LacksEvents(Exception):
    """Events of the state are not stored."""


def complete_room(
    txn: Transaction, context: AppendContext, room_id: str, join_event_id: str, whole: KnownState
) -> bool:
    """Put `whole` before the join by which a room was entered; False if that was done already.

    Raises LacksEvents.
    """
    draft = open_draft(txn, context, room_id)
    partial = partial_rooms.get(txn, draft.row.room_nid) if draft is not None else None
    if draft is None or partial is None or partial.join_event_id != join_event_id:
        return False
    row = draft.row
    tree = RoomTree(txn, context.states, row.room_nid, draft.version)
    if whole.noted is not None:
        tree.know(whole.noted.numbers(txn, row.room_nid), whole.events, whole.noted.rejected)
    numbers = tree.numbers_of(set(whole.state.values()), whole.events)
    if len(numbers) < len(set(whole.state.values())):
        raise LacksEvents(room_id)
    entries = {key: numbers[name] for key, name in whole.state.items()}
    before = tree.build(entries)
    following = _Following(txn, tree, draft)
    following.recompute(join_event_id, before)
    events.overwrite(txn, following.changed)
    roots = [after for name in row.extremities if (after := following.after(name)) is not None]
    current = tree.resolve(roots)
    differences = tree.diff_known(row.state_root or b"", current, before, entries)
    changes = change_state(draft, tree, differences)
    _replace_current(txn, draft, tree, following.rows[join_event_id], current, changes)
    partial_rooms.remove(txn, row.room_nid)
    txn.notify(f"room:{row.room_nid}")
    return True


class _Following:
    """The events of a room from a join on, with the states around them.

    `rows` has them by ID, `changed` those whose states are others now.
    """

    def __init__(self, txn: Transaction, tree: RoomTree, draft: RoomDraft) -> None:
        self._txn = txn
        self._tree = tree
        self._draft = draft
        self.rows: dict[str, EventRow] = {}
        self.changed: list[EventRow] = []
        self._after: dict[str, bytes | None] = {}

    def recompute(self, join_event_id: str, before: bytes) -> None:
        """Compute the states anew, `before` being the one before the join."""
        nid = self._draft.row.room_nid
        self.rows = {
            row.event_id: row for row in events.placed_since(self._txn, nid, join_event_id)
        }
        version = self._draft.version
        found = [Event.from_json(r.json, version, r.event_id) for r in self.rows.values()]
        touched = {join_event_id}
        for event in topological_order(found):
            if event.event_id == join_event_id:
                self._place(event, before)
            elif touched.intersection(event.prev_event_ids):
                roots = [self.after(name) for name in event.prev_event_ids]
                if None in roots:
                    # Its state was given whole by another server, as not all before it is known.
                    continue
                self._place(event, self._tree.resolve([root for root in roots if root]))
            else:
                continue
            touched.add(event.event_id)

    def after(self, event_id: str) -> bytes | None:
        """The root of the state after an event; None if it has no place in the room."""
        if event_id not in self._after:
            row = self.rows.get(event_id) or events.get(self._txn, event_id)
            is_here = row is not None and row.room_nid == self._draft.row.room_nid
            self._after[event_id] = row.state_after if row is not None and is_here else None
        return self._after[event_id]

    def _place(self, event: Event, before: bytes) -> None:
        row = self.rows[event.event_id]
        status = row.status
        if status == ACCEPTED and not self._is_allowed(event, before):
            status = MISPLACED
        after, replaces = before, row.replaces_state
        if event.is_state and status in (ACCEPTED, SOFT_FAILED):
            old = self._tree.state(before, [event.key]).get(event.key)
            replaces = old.event_id if old is not None else None
            after = self._tree.update(before, {event.key: row.event_nid})
        self._after[event.event_id] = after
        self.changed.append(
            row._replace(
                state_before=before, state_after=after, status=status, replaces_state=replaces
            )
        )

    def _is_allowed(self, event: Event, before: bytes) -> bool:
        keys = auth_rules.auth_types(
            event.type, event.sender, event.state_key, event.content, event.version
        )
        state = self._tree.state(before, {*keys, CREATE})
        try:
            auth_rules.check(event, state, create=state.get(CREATE))
        except auth_rules.EventRejected:
            return False
        return True


def _replace_current(
    txn: Transaction,
    draft: RoomDraft,
    tree: RoomTree,
    join: EventRow,
    current: bytes,
    changes: Mapping[StateKey, Current | None],
) -> None:
    """Make `current` the room's state. Readers learn of it as of a change of state."""
    row = draft.row
    tree.save()
    draft.row = row._replace(
        head_version=row.head_version + 1,
        state_root=current,
        state_version=row.head_version + 1,
    )
    item = Rooted(
        Event.from_json(join.json, draft.version, join.event_id),
        join.event_nid,
        join.state_before or b"",
        join.state_after or b"",
        current,
        changes,
        # It is in its place already: only what changes beside it is written.
        status=MISPLACED,
        logged=":" + draft.server_name,
    )
    asides = len(item.asides)
    # The new state is in force from the position before `first` on, or that of the last aside.
    last = txn.next_pos(asides or 2)
    first = last - asides + 1 if asides else last
    project_state(txn, draft, [item], first)
    servers = Counter(domain_of(name) for name in residence.others(txn, row.room_nid))
    room_servers.put(txn, row.room_nid, servers)
    rooms.put(txn, [draft.row._replace(last_pos=last, remote_servers=len(servers))])
