"""Events without a place in a room's timeline: of auth chains, and of states.

They are judged by their own auth events only (Server-Server API, "Checks performed on receipt of
a PDU", step 4).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence

from homeserver.core import auth_rules
from homeserver.core.alike_joins import AlikeJoins
from homeserver.core.event import Event
from homeserver.core.graph import topological_order
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import StateKey
from homeserver.rooms.draft import CREATE
from homeserver.rooms.judged import NOT_ADDED, Judged
from homeserver.rooms.relations import relation_of
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.rooted import Current, Rooted
from homeserver.rooms.write import event_row, federation_text
from storage import events
from storage.events import ACCEPTED, MISPLACED, REJECTED, EventRow, OutlierRow
from storage.state import NumberBlocks
from storage.transaction import Transaction

_BATCH = 500
_NO_CHANGES: Mapping[StateKey, Current | None] = {}


class Outliers:
    """Judges outliers of one room and stores them, in one transaction."""

    def __init__(
        self,
        txn: Transaction,
        room_nid: int,
        tree: RoomTree,
        event_numbers: NumberBlocks,
        server_name: str,
    ) -> None:
        self._txn = txn
        self._room_nid = room_nid
        self._tree = tree
        self._numbers = event_numbers
        self._server_name = server_name
        self.judged: dict[str, Judged] = {}
        self.inserted: dict[str, int] = {}
        self._rows: dict[str, EventRow] = {}
        self._statuses: dict[str, int] = {}
        self._fresh: list[OutlierRow] = []
        self._related: list[EventRow] = []
        self._create: Event | None = None
        self._alike = AlikeJoins()

    def add(self, received: Sequence[Event], absent: Container[str] = ()) -> None:
        """Judge events and store those that can be judged; `judged` has the outcomes, `inserted`
        the numbers of those that were not stored before.

        Parameters: `absent`, events that were not stored a moment ago, which are not looked up.

        Raises IntegrityViolation if one of these is stored by now.
        """
        self._load(received, absent)
        self._alike = AlikeJoins()
        self._fresh, self._related = [], []
        again: list[EventRow] = []
        ordered = topological_order(received)
        numbers = iter(self._numbers.take(self._txn, len(ordered))) if ordered else iter(())
        for event in ordered:
            name = event.event_id
            row = self._rows.get(name)
            if row is None and self._alike.allow(event, self._create):
                # Nothing is left to look at: what is alike names the same auth events.
                self.judged[name] = Judged(name, ACCEPTED, None, (), (), None, True)
                self._statuses[name] = ACCEPTED
                self._keep(event, next(numbers), ACCEPTED)
                continue
            if row is not None and not self._is_judged_anew(row):
                self._answer(event, row)
                continue
            judged = self._judge(event)
            if row is not None and row.status == judged.status:
                self._answer(event, row)
                continue
            self.judged[name] = judged
            if judged.status == NOT_ADDED:
                self._statuses.pop(name, None)
                continue
            self._statuses[name] = judged.status
            if row is None:
                self._keep(event, next(numbers), judged.status)
            else:
                again.append(self._row(event, row.event_nid, judged.status))
        for event in received:
            if event.event_id not in self.judged:
                reason = "The event is its own ancestor."
                self.judged[event.event_id] = Judged(event.event_id, NOT_ADDED, reason)
        events.insert_outliers(self._txn, self._fresh)
        events.insert(self._txn, self._related)
        events.overwrite(self._txn, again)
        self.inserted = {row.event_id: row.event_nid for row in self._fresh}
        self.inserted |= {row.event_id: row.event_nid for row in self._related}
        self._redact(list(self.inserted))

    def _redact(self, event_ids: Sequence[str]) -> None:
        """Apply the redactions that waited for these events."""
        for start in range(0, len(event_ids), _BATCH):
            held = events.held_redactions(self._txn, event_ids[start : start + _BATCH])
            for event_id, redactions in held.items():
                for redaction_id in redactions:
                    self._tree.redact(redaction_id)
                self._tree.forget(event_id)

    @property
    def rejected(self) -> set[str]:
        """Those of `inserted` that their own auth events forbid."""
        return {name for name in self.inserted if self._statuses[name] == REJECTED}

    def status(self, event_id: str) -> int | None:
        """The verdict on an event; None if it is not known."""
        return self._statuses.get(event_id)

    def _load(self, received: Sequence[Event], absent: Container[str]) -> None:
        wanted = {event.event_id for event in received if event.event_id not in absent}
        wanted.update(*{event.auth_event_ids for event in received})
        for event in received:
            if event.version.room_id_is_create_hash:
                wanted.add("$" + event.room_id[1:])
                break
        names = [name for name in wanted if name not in absent]
        for start in range(0, len(names), _BATCH):
            self._rows |= events.get_many(self._txn, names[start : start + _BATCH])
        for name, row in self._rows.items():
            is_here = row.room_nid == self._room_nid
            self._statuses[name] = row.status if is_here else REJECTED

    def _is_judged_anew(self, row: EventRow) -> bool:
        if row.room_nid != self._room_nid or row.state_after is not None:
            return False
        if row.type == "m.room.member" and domain_of(row.state_key or "") == self._server_name:
            # Such invites are stored when they come, and what the room allows is not known then.
            return True
        # Rejected for something that was not known then, perhaps.
        return row.status == REJECTED

    def _answer(self, event: Event, row: EventRow) -> None:
        if row.room_nid != self._room_nid:
            reason = "The event is known in another room."
            self.judged[event.event_id] = Judged(event.event_id, NOT_ADDED, reason)
            return
        self._note_create(event)
        self.judged[event.event_id] = Judged(event.event_id, row.status, pos=row.pos)

    def _note_create(self, event: Event) -> None:
        if event.is_create:
            self._create = event

    def _judge(self, event: Event) -> Judged:
        missing = [name for name in event.auth_event_ids if name not in self._statuses]
        if missing:
            reason = "Events of its auth chain are not known."
            return Judged(event.event_id, NOT_ADDED, reason, missing_auth=tuple(missing))
        try:
            self._check(event)
        except auth_rules.EventRejected as refusal:
            return Judged(event.event_id, REJECTED, refusal.reason, is_new=True)
        self._note_create(event)
        return Judged(event.event_id, ACCEPTED, is_new=True)

    def _check(self, event: Event) -> None:
        create = self._create
        if self._alike.allow(event, create):
            return
        for name in event.auth_event_ids:
            row = self._rows.get(name)
            if row is not None and row.room_nid != self._room_nid:
                raise auth_rules.EventRejected("3.5", f"{name} belongs to another room.")
        found = self._tree.event_map(event.auth_event_ids)
        named = [found[name] for name in dict.fromkeys(event.auth_event_ids) if name in found]
        if create is None and event.version.room_id_is_create_hash:
            create = self._tree.event("$" + event.room_id[1:])
        auth_rules.check_auth_events(
            event, named, lambda name: self._statuses.get(name) in (REJECTED, MISPLACED), create
        )
        state = {other.key: other for other in named}
        auth_rules.check(event, state, create=create)
        judged_by = create if create is not None else state.get(CREATE)
        if judged_by is not None and len(named) == len(set(event.auth_event_ids)):
            self._alike.note(event, named, self._create, judged_by)

    def _keep(self, event: Event, number: int, status: int) -> None:
        """Have a new event inserted."""
        if not event.is_state and relation_of(event) is not None:
            self._related.append(self._row(event, number, status))
            return
        self._tree.add(event, number, rejected=status == REJECTED)
        self._fresh.append(
            OutlierRow(
                number,
                event.event_id,
                self._room_nid,
                event.depth,
                event.type,
                event.state_key,
                event.sender,
                event.origin_server_ts,
                federation_text(event),
                status,
                isinstance(event.content.get("url"), str),
            )
        )

    def _row(self, event: Event, number: int, status: int) -> EventRow:
        self._tree.add(event, number, rejected=status == REJECTED)
        return event_row(
            Rooted(event, number, None, None, None, _NO_CHANGES, status),
            self._room_nid,
            None,
            relation_of(event),
        )


def known_version(received: Collection[Event]) -> RoomVersion:
    """The room version of events that go together."""
    return next(iter(received)).version
