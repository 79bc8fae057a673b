"""Adding events of other servers to a room, within one transaction and under the room's lock.

Server-Server API, "Checks performed on receipt of a PDU", from step 4 on (steps 1 to 3 are in
`federation.client.pdus`). For each event, its predecessors first:

1. It must be known what it builds on: the events that it names, or else the state before it.
2. Its own auth events must allow it, or it is rejected.
3. The state before it, resolved if it joins branches, must allow it, or it is rejected too
   ("misplaced"): it stays usable for state resolution.
4. The current state must allow it, or it is soft-failed: kept, but not shown or built on. So is
   what the room's policy server does not recommend.
5. The room's forward extremities and its current state follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.core import auth_rules, state_tree
from homeserver.core.event import Event
from homeserver.core.graph import forward_extremities, topological_order
from homeserver.core.policy import PolicyServer, is_recommended
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import StateKey
from homeserver.rooms.build import LocalSigner
from homeserver.rooms.continued import Alike, Continued, Verdict, alike, is_judged_by_sender, kinds
from homeserver.rooms.draft import CREATE, NewEvent, RoomDraft
from homeserver.rooms.judged import NOT_ADDED, Judged, KnownState, Reset
from homeserver.rooms.merging import MAX_HEADS, merges
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.rooted import Current, Rooted
from storage import events, gaps, memberships
from storage.events import ACCEPTED, MISPLACED, REJECTED, SOFT_FAILED, EventRow
from storage.gaps import Gap
from storage.room_notes import RoomNotes
from storage.transaction import Transaction

MAX_WALKED = 1000
"""Events without effect that are looked behind, in one batch, for what a new event replaces."""


class NotAllNew(Exception):
    """Events that were presumed to be new have to be looked for."""


@dataclass(slots=True)
class Receiving:
    """Events of one room on their way in. `draft` has the room's head.

    Parameters: `live`, whether the events count for the head; `numbers` gives new event numbers;
    `notes`, what was noted of the room before.
    """

    txn: Transaction
    tree: RoomTree
    draft: RoomDraft
    numbers: Callable[[int], list[int]]
    notes: RoomNotes
    live: bool = True
    judged: dict[str, Judged] = field(default_factory=dict)
    rooted: list[Rooted] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)
    policy: PolicyServer | None = None
    """The policy server that has to recommend what is added at the head."""
    presumed_new: bool = False
    """Whether the events are not looked for: `NotAllNew` if it takes more to tell that they are new
    than that the database takes them."""
    ask_policy: bool = False
    """Whether events that it has not signed are put into `unsigned`, instead of soft-failing."""
    unsigned: list[Event] = field(default_factory=list)
    new_gaps: list[Gap] = field(default_factory=list)
    known: Continued | None = None
    """What is remembered of the room."""
    signer: LocalSigner | None = None
    """Signs events that bring branches together."""
    now_ms: int = 0
    _rows: dict[str, EventRow] = field(default_factory=dict)
    _after: dict[str, bytes] = field(default_factory=dict)
    _statuses: dict[str, int] = field(default_factory=dict)
    _referenced: Collection[str] = ()
    _create: Event | None = None
    _senders: list[str] | None = None
    _walked: int = 0
    _verdicts: dict[Alike, Verdict] = field(default_factory=dict)

    @property
    def version(self) -> RoomVersion:
        """The room's version."""
        return self.draft.version

    @property
    def closed_gaps(self) -> list[str]:
        """The events that were missed and are here now."""
        names = [item.event.event_id for item in self.rooted]
        return [name for name in names if name in self._referenced]

    def run(
        self, received: Sequence[Event], states: Mapping[str, KnownState], outgoing: bool
    ) -> None:
        """Judge the events; `judged` has the outcomes, `rooted` what is to be written.

        Raises NotAllNew, see `presumed_new`: nothing is written yet.
        """
        given = {name for known in states.values() for name in known.state.values()}
        ordered, fresh, numbers, behind = self._begin(received, states, outgoing)
        for place, event in enumerate(fresh):
            if place < behind:
                continue
            behind = self._go_on(fresh, place, numbers, states, outgoing)
            if place < behind:
                continue
            stored = self._rows.get(event.event_id)
            number = next(numbers) if stored is None else stored.event_nid
            self._one(event, number, states.get(event.event_id), outgoing)
            if self.live and len(self.draft.row.extremities) > MAX_HEADS:
                self._merge()
        for event in received:
            if event.event_id not in self.judged:
                self._refuse(event, "The event is its own ancestor.")
        if self.presumed_new and any(each.status != ACCEPTED for each in self.judged.values()):
            # Those that are accepted are inserted, which fails if one is known.
            raise NotAllNew
        self._find_resets({event.key for event in ordered if event.is_state}, given)

    def _begin(
        self, received: Sequence[Event], states: Mapping[str, KnownState], outgoing: bool
    ) -> tuple[list[Event], list[Event], Iterator[int], int]:
        """All events, those that have to be judged, numbers for these, and how many of them are
        placed already: all that go on where the room was left."""
        heads = self.draft.row.extremities
        names = [event.event_id for event in received]
        self._referenced = gaps.missing(
            self.txn, self.draft.row.room_nid, names, self.notes.noted_gaps(names)
        )
        if self.known is not None and self._is_continued(self.known, names):
            self._verdicts = self.known.verdicts()
            self._after = dict.fromkeys(heads, self.known.root)
            self._statuses = dict.fromkeys(heads, ACCEPTED)
            # Nothing of it is known, so that all are to be judged.
            fresh = topological_order(received)
            numbers = iter(self.numbers(len(fresh)))
            behind = self._go_on(fresh, 0, numbers, states, outgoing)
            if behind < len(fresh):
                self._load(received, names, heads)
            return fresh, fresh, numbers, behind
        self._load(received, names, heads)
        ordered = topological_order([self._as_stored(event) for event in received])
        fresh = [event for event in ordered if not self._answered(event)]
        return ordered, fresh, iter(self.numbers(len(fresh)) if fresh else ()), 0

    def _is_continued(self, known: Continued, names: Sequence[str]) -> bool:
        """Whether the room is as it is remembered, and nothing need be loaded to go on there."""
        row = self.draft.row
        return (
            self.presumed_new
            and not self.notes.is_partial
            and known.is_as_before(row, self.notes.content_version)
            and set(row.extremities).isdisjoint(names)
        )

    def _load(
        self, received: Sequence[Event], names: Sequence[str], heads: Collection[str]
    ) -> None:
        """Read what events with these IDs build on, and what is known of them already."""
        wanted = set(heads)
        if self.presumed_new and not wanted.isdisjoint(names):
            # A head is known, and what is not loaded of it would be missed.
            raise NotAllNew
        for event in received:
            wanted.update(event.prev_event_ids, event.auth_event_ids)
        if self.presumed_new:
            wanted.difference_update(names)
        else:
            wanted.update(names)
        self._rows = events.get_many(self.txn, wanted)
        for name, row in self._rows.items():
            self._statuses[name] = row.status
            if row.room_nid != self.draft.row.room_nid:
                continue
            self.tree.tell(row)
            if row.state_after is not None:
                self._after[name] = row.state_after
        root = self.draft.row.state_root
        if root is not None:
            self._create = self.tree.state(root, [CREATE]).get(CREATE)

    def _as_stored(self, event: Event) -> Event:
        """The event in its redacted form if it was redacted here before it had a place."""
        row = self._rows.get(event.event_id)
        return event if row is None or row.redacted_by is None else event.redacted()

    def _answered(self, event: Event) -> bool:
        """Answer for an event that is in its place already; rejected ones are judged again."""
        row = self._rows.get(event.event_id)
        if row is None:
            return False
        if row.room_nid != self.draft.row.room_nid:
            self._refuse(event, "The event is known in another room.")
            return True
        if row.state_after is None or row.status not in (ACCEPTED, SOFT_FAILED):
            return False
        self.judged[event.event_id] = Judged(event.event_id, row.status, pos=row.pos)
        return True

    def _refuse(
        self,
        event: Event,
        reason: str,
        missing_prev: Sequence[str] = (),
        missing_auth: Sequence[str] = (),
    ) -> None:
        self.judged[event.event_id] = Judged(
            event.event_id, NOT_ADDED, reason, tuple(missing_prev), tuple(missing_auth)
        )

    def _one(
        self, event: Event, number: int, known_state: KnownState | None, outgoing: bool
    ) -> None:
        missing_auth = [name for name in event.auth_event_ids if name not in self._statuses]
        missing_prev = []
        if known_state is None:
            missing_prev = [
                name
                for name in event.prev_event_ids
                if name not in self._after and not self._is_elsewhere(name)
            ]
        if missing_prev or missing_auth:
            reason = "Events that it is built on are not known."
            self._refuse(event, reason, missing_prev, missing_auth)
            return
        before = self._before(event, known_state)
        if before is None:
            self._refuse(event, "Events of the state before it are not known.")
            return
        status, reason_or_none = self._verdict(event, before)
        self._place(event, number, before, status, outgoing and status == ACCEPTED)
        if known_state is not None:
            self.new_gaps += [
                Gap(name, event.event_id, event.depth)
                for name in event.prev_event_ids
                if name not in self._after
            ]
        self.judged[event.event_id] = Judged(
            event.event_id, status, reason_or_none, is_new=event.event_id not in self._rows
        )

    def _go_on(
        self,
        fresh: Sequence[Event],
        place: int,
        numbers: Iterator[int],
        states: Mapping[str, KnownState],
        outgoing: bool,
    ) -> int:
        """Place messages from `place` on that come one right after the other at the head, in the
        state of the head, and are to the rules as ones that were accepted; the place behind them.

        The same comes of it as of `_one` for each.
        """
        row, root = self.draft.row, self.draft.row.state_root
        heads, depth = row.extremities, row.depth
        if not self._verdicts or not self.live or self.policy is not None or root is None:
            return place
        for head in heads:
            if self._after.get(head) != root or self._statuses.get(head) != ACCEPTED:
                return place
        first = place
        while place < len(fresh):
            event = fresh[place]
            name = event.event_id
            if (
                event.prev_event_ids != heads
                or event.state_key is not None
                or name in self._rows
                or name in self._referenced
                or name in states
                or name in heads
                # Each event of the same sort named known auth events of this room.
                or self._verdicts.get(alike(event, root, root)) != (ACCEPTED, None)
            ):
                break
            number = next(numbers)
            self.tree.add(event, number)
            self._after[name] = root
            self._statuses[name] = ACCEPTED
            self.draft.added.append(NewEvent(event, None, None))
            self.rooted.append(
                Rooted(event, number, root, root, root, {}, ACCEPTED, None, None, outgoing)
            )
            self.judged[name] = Judged(name, ACCEPTED, None, (), (), None, True)
            heads, depth = (name,), max(depth, event.depth)
            place += 1
        if place > first:
            self.draft.row = row._replace(
                head_version=row.head_version + place - first, depth=depth, extremities=heads
            )
        return place

    def _is_elsewhere(self, event_id: str) -> bool:
        row = self._rows.get(event_id)
        return row is not None and row.room_nid != self.draft.row.room_nid

    def _before(self, event: Event, known: KnownState | None) -> bytes | None:
        """The root of the state before an event."""
        if known is not None:
            numbers = self.tree.numbers_of(set(known.state.values()), known.events)
            if len(numbers) < len(set(known.state.values())):
                return None
            usable = {
                key: numbers[name]
                for key, name in known.state.items()
                if not self.tree.is_rejected(name)
            }
            return self.tree.build(usable)
        roots = [self._after[name] for name in event.prev_event_ids if name in self._after]
        return self.tree.resolve(roots) if roots else state_tree.EMPTY

    def _verdict(self, event: Event, before: bytes) -> tuple[int, str | None]:
        if event.is_create and (self._create is None or event != self._create):
            return REJECTED, "A room is created only once."
        for name in (*event.prev_event_ids, *event.auth_event_ids):
            if self._is_elsewhere(name):
                return REJECTED, f"{name} belongs to another room."
        verdict = self._allowed(event, before)
        if verdict[0] != ACCEPTED:
            return verdict
        if self.live and self.policy is not None and not is_recommended(event, self.policy):
            if self.ask_policy:
                self.unsigned.append(event)
            return SOFT_FAILED, f"Not recommended by the policy server {self.policy.name}."
        return verdict

    def _allowed(self, event: Event, before: bytes) -> tuple[int, str | None]:
        """What the authorisation rules say; asked once for messages that are alike to them."""
        if not is_judged_by_sender(event):
            return self._judge(event, before)
        kind = alike(event, before, self.draft.row.state_root)
        verdict = self._verdicts.get(kind)
        if verdict is None:
            verdict = self._verdicts[kind] = self._judge(event, before)
        return verdict

    def _judge(self, event: Event, before: bytes) -> tuple[int, str | None]:
        try:
            named = self._check_auth_events(event)
        except auth_rules.EventRejected as refusal:
            return REJECTED, f"By its auth events: {refusal.reason}"
        try:
            auth_rules.check(event, self._state(event, before, named), create=self._create)
        except auth_rules.EventRejected as refusal:
            return MISPLACED, f"By the state before it: {refusal.reason}"
        current = self.draft.row.state_root
        if self.live and current is not None and current != before:
            try:
                auth_rules.check(event, self._state(event, current, named), create=self._create)
            except auth_rules.EventRejected as refusal:
                return SOFT_FAILED, f"By the current state: {refusal.reason}"
        return ACCEPTED, None

    def _check_auth_events(self, event: Event) -> dict[StateKey, Event]:
        found = self.tree.event_map(event.auth_event_ids)
        named = [found[name] for name in dict.fromkeys(event.auth_event_ids) if name in found]
        auth_rules.check_auth_events(
            event,
            named,
            lambda name: self._statuses.get(name) in (REJECTED, MISPLACED),
            self._create,
        )
        state = {other.key: other for other in named}
        auth_rules.check(event, state, create=self._create)
        return state

    def _state(
        self, event: Event, root: bytes, named: Mapping[StateKey, Event]
    ) -> dict[StateKey, Event]:
        keys = auth_rules.auth_types(
            event.type, event.sender, event.state_key, event.content, self.version
        )
        state = self.tree.state(root, {*keys, CREATE})
        if self.notes.is_partial:
            # Of members that are not known yet, the event's own auth events have to be believed.
            for key, other in named.items():
                if key[0] == "m.room.member":
                    state.setdefault(key, other)
        return state

    def _place(self, event: Event, number: int, before: bytes, status: int, outgoing: bool) -> None:
        after, replaces = before, None
        self.tree.add(event, number, rejected=status == REJECTED)
        if event.is_state and status in (ACCEPTED, SOFT_FAILED):
            replaces = self.tree.state(before, [event.key]).get(event.key)
            after = self.tree.update(before, {event.key: number})
        self._after[event.event_id] = after
        self._statuses[event.event_id] = status
        current = None
        changes: dict[StateKey, Current | None] = {}
        if self.live and status == ACCEPTED:
            current, changes = self._advance(event)
            self.draft.added.append(NewEvent(event, None, replaces))
        self.rooted.append(
            Rooted(
                event,
                number,
                before,
                after,
                current,
                changes,
                status,
                replaces=replaces,
                outgoing=outgoing,
                is_known=event.event_id in self._rows,
            )
        )

    def _advance(self, event: Event) -> tuple[bytes, dict[StateKey, Current | None]]:
        """The new head; returns the new current state, and by what it differs."""
        row = self.draft.row
        extremities: Collection[str] = (event.event_id,)
        if not self._follows_head(event):
            extremities = forward_extremities(
                row.extremities,
                [event],
                referenced=self._referenced,
                excluded_prev_event_ids=self._prev_of_excluded,
            )
        old = row.state_root or state_tree.EMPTY
        roots = [self._after[name] for name in extremities if name in self._after]
        current = self.tree.resolve(roots) if roots else old
        changes: dict[StateKey, Current | None] = {}
        for key, (old_number, new_number) in self.tree.diff(old, current).items():
            numbers = [number for number in (old_number, new_number) if number is not None]
            found = self.tree.events_of(numbers)
            new = found[new_number] if new_number is not None else None
            changes[key] = Current(new, new_number) if new and new_number is not None else None
            self.draft.changed.setdefault(
                key, found[old_number] if old_number is not None else None
            )
            self.draft.known[key] = new
        self.draft.row = row._replace(
            head_version=row.head_version + 1,
            depth=max(row.depth, event.depth),
            extremities=tuple(sorted(extremities)),
            state_root=current,
            state_version=row.head_version + 1 if changes else row.state_version,
        )
        return current, changes

    def _follows_head(self, event: Event) -> bool:
        """Whether an event comes right after all that the head is made of, and after nothing
        else: then it is the head."""
        heads = self.draft.row.extremities
        return (
            event.prev_event_ids == heads
            and event.event_id not in self._referenced
            and event.event_id not in heads
            and all(self._statuses.get(name) == ACCEPTED for name in heads)
        )

    def _prev_of_excluded(self, event_id: str) -> Sequence[str]:
        """The predecessors of an event that was rejected or soft-failed."""
        if self._statuses.get(event_id, ACCEPTED) == ACCEPTED:
            return ()
        self._walked += 1
        if self._walked > MAX_WALKED:
            return ()
        event = self.tree.event(event_id)
        if event is None:
            return ()
        unknown = [name for name in event.prev_event_ids if name not in self._statuses]
        for name, row in events.get_many(self.txn, unknown).items():
            self._statuses[name] = row.status
        return event.prev_event_ids

    def _merge(self) -> None:
        """Bring branches of the room together by an event of this server, if it may make one."""
        if self.signer is None:
            return
        if self._senders is None:
            self._senders = memberships.local_joined(self.txn, self.draft.row.room_nid)
        for event in merges(self.draft, self._senders, self.signer, self.now_ms):
            roots = [self._after[name] for name in event.prev_event_ids if name in self._after]
            for name, row in events.get_many(self.txn, event.auth_event_ids).items():
                self._statuses.setdefault(name, row.status)
            before = self.tree.resolve(roots)
            if self._verdict(event, before)[0] == ACCEPTED:
                self._place(event, self.numbers(1)[0], before, ACCEPTED, True)
                return

    def _find_resets(self, touched: Collection[StateKey], given: Collection[str]) -> None:
        """Changes of the state beside the events, and beside the states before them that were
        `given`."""
        for key, old in self.draft.changed.items():
            new = self.draft.known.get(key)
            if new is not None and new.event_id in given:
                continue
            if key not in touched and old != new:
                self.resets.append(
                    Reset(key, old.event_id if old else None, new.event_id if new else None)
                )

    def continued(self) -> Continued | None:
        """What may be remembered of the room once all is written and committed."""
        row, root = self.draft.row, self.draft.row.state_root
        if not self.live or self.policy is not None or self.notes.is_partial or root is None:
            return None
        for head in row.extremities:
            if self._after.get(head) != root or self._statuses.get(head) != ACCEPTED:
                return None
        allowed = kinds(self._verdicts, root)
        if not allowed:
            return None
        version = self.notes.content_version
        return Continued(row.room_nid, row.head_version, version, root, allowed)

    def finish(self, positions: Mapping[str, int]) -> dict[str, Judged]:
        """The outcomes, with the positions that the events were given."""
        return {
            name: judged.at(positions[name]) if name in positions else judged
            for name, judged in self.judged.items()
        }
