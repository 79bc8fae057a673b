"""Events of other servers, on their way into rooms: see `homeserver.rooms.receiving`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import structlog
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from homeserver.cache import Cache
from homeserver.core import errors
from homeserver.core.event import Event
from homeserver.core.policy import POLICY, PolicyServer
from homeserver.core.room_versions import RoomVersion
from homeserver.rooms import blocking, continued, redact, searchable, sticky, unread
from homeserver.rooms.adopt import BadState, Entry, adopt, open_room
from homeserver.rooms.append import Appender
from homeserver.rooms.commit import CachedHead, Proposal, draft_at, policy_in_force
from homeserver.rooms.continued import Continued
from homeserver.rooms.familiar import Familiar, NotAsPresumed
from homeserver.rooms.judged import NOT_ADDED, Judged, KnownState, Reset
from homeserver.rooms.newness import Newness
from homeserver.rooms.noted import Noted
from homeserver.rooms.outliers import Outliers, known_version
from homeserver.rooms.receiving import NotAllNew, Receiving
from homeserver.rooms.requests import Appended, AppendRequest
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.write import WrittenRoom, event_row, insert, relations_among
from storage import events, gaps, room_notes, rooms, timeline
from storage.database import Database
from storage.errors import CommitUnknown, IntegrityViolation
from storage.events import ACCEPTED
from storage.transaction import Transaction

__all__ = ["NOT_ADDED", "BadState", "Judged", "KnownState", "Receiver"]

MAX_TRIES = 5
_ASKED_AT_ONCE = 10

T = TypeVar("T")

_log = structlog.get_logger(__name__)

NO_STATES: Mapping[str, KnownState] = {}


class Observer(Protocol):
    """Told of what was received: for metrics."""

    def __call__(self, status: int, count: int, /) -> None: ...


class Keeper(Protocol):
    """Stores something with what is added: what became of it."""

    def begin(self) -> None:
        """A transaction of the database begins: what was done in one before did not count."""

    def keep(
        self, txn: Transaction, events: Sequence[Event], verdicts: Mapping[str, Judged], /
    ) -> None:
        """Store it. Positions are not known yet."""


@dataclass(slots=True)
class _Added:
    """What a transaction did; or, with `unsigned`, what `policy` has to sign before."""

    judged: dict[str, Judged]
    written: list[WrittenRoom] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)
    unsigned: list[Event] = field(default_factory=list)
    policy: PolicyServer | None = None
    head: CachedHead | None = None
    """The room's, if it was written."""
    continued: Continued | None = None


class Receiver:
    """Adds events that other servers made, and those that others had to sign first.

    They must have been checked by `federation.client.pdus.PduChecker`.

    Parameters: `on_reset`, called with the room and each change of its state that came out of
    state resolution alone.
    """

    def __init__(
        self,
        db: Database,
        appender: Appender,
        clock: IReactorTime,
        on_reset: Sequence[Callable[[str, Sequence[Reset]], None]] = (),
        observe: Observer | None = None,
    ) -> None:
        self._db = db
        self._appender = appender
        self._context = appender.context
        self._clock = clock
        self.on_reset = list(on_reset)
        self._observe = observe
        self._newness = Newness()
        self._known: Cache[str, Continued] = Cache("continued_rooms", continued.size, share=0.05)
        self.caches = (self._known,)

    async def add(
        self,
        room_id: str,
        received: Sequence[Event],
        *,
        states: Mapping[str, KnownState] = NO_STATES,
        outgoing: bool = False,
        keeper: Keeper | None = None,
        presumed: Familiar | None = None,
    ) -> dict[str, Judged]:
        """Add events at the head of a room; what became of each, by its ID.

        Parameters: `states`, the state before those events whose predecessors are not known, by
        event ID; `outgoing`, whether this server is to tell the others in the room; `keeper`,
        which is called in the same transaction, unless nobody may add to the room; `presumed`,
        how their sender is presumed to find the room.

        Raises NotAsPresumed: nothing was added, and `keeper` has stored nothing, or perhaps all
        was and nobody knows.
        """
        done = await self._add(
            room_id, received, states, outgoing, ask_policy=True, keeper=keeper, presumed=presumed
        )
        if done.policy is not None and done.unsigned:
            signed = await self._ask(done.unsigned, done.policy)
            again = [signed.get(event.event_id, event) for event in received]
            done = await self._add(
                room_id, again, states, outgoing, ask_policy=False, keeper=keeper, presumed=presumed
            )
        self._tell(room_id, done.judged, done.written)
        if done.resets:
            for callback in self.on_reset:
                callback(room_id, done.resets)
        return done.judged

    async def add_signed(self, request: AppendRequest, proposal: Proposal) -> Appended:
        """Add events of this server that the room's policy server has signed.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` if the room has changed so that they are not allowed.
        """
        room_id, made = proposal.room_id, proposal.events
        try:
            done = await self._add(
                room_id, made, NO_STATES, True, ask_policy=False, request=request
            )
        except _SentBefore as sent:
            return Appended(room_id, (sent.event_id,), 0)
        self._tell(room_id, done.judged, done.written)
        for event in made:
            judged = done.judged[event.event_id]
            if not judged.accepted:
                raise errors.forbidden(judged.reason or "The room has changed meanwhile.")
        return Appended(room_id, proposal.event_ids, done.judged[made[-1].event_id].pos or 0)

    async def _add(
        self,
        room_id: str,
        received: Sequence[Event],
        states: Mapping[str, KnownState],
        outgoing: bool,
        *,
        ask_policy: bool,
        request: AppendRequest | None = None,
        keeper: Keeper | None = None,
        presumed: Familiar | None = None,
    ) -> _Added:
        presumed_new = keeper is not None and not states and self._newness.presumed(room_id)
        known = self._known.get(room_id) if presumed_new else None
        tries = 0

        def judged(txn: Transaction, *, are_new: bool) -> Receiving | None:
            receiving = self._open(txn, room_id, live=True, presumed=presumed)
            if receiving is not None:
                receiving.ask_policy = ask_policy
                receiving.presumed_new = are_new
                receiving.known = known
                receiving.run(received, states, outgoing)
            return receiving

        def work(txn: Transaction) -> _Added:
            nonlocal tries
            tries += 1
            if presumed is not None and tries > 1:
                # An event is known, or the answer; or nobody knows.
                raise NotAsPresumed
            if keeper is not None:
                keeper.begin()
            try:
                receiving = judged(txn, are_new=presumed_new and tries == 1)
            except NotAllNew:
                tries += 1
                receiving = judged(txn, are_new=False)
            if receiving is None:
                return _Added(_unknown_room(received))
            if receiving.unsigned:
                # Nothing is written: the policy server is asked first.
                return _Added({}, unsigned=receiving.unsigned, policy=receiving.policy)
            if request is not None:
                _as_requested(txn, receiving, request)
            if keeper is not None:
                keeper.keep(txn, received, receiving.judged)
            written = self._write(txn, receiving) if receiving.rooted else []
            places = {entry.event.event_id: entry.pos for w in written for entry in w.entries}
            draft = receiving.draft
            head = CachedHead(draft.row, draft.known) if written else None
            judgements, goes_on = receiving.finish(places), receiving.continued()
            return _Added(judgements, written, receiving.resets, head=head, continued=goes_on)

        try:
            done = await self._retried(work)
        finally:
            if presumed_new and tries > 1:
                self._newness.disproved(room_id)
        if done.head is not None:
            # What is added next, from here or elsewhere, need not read the state again.
            self._appender.keep_head(room_id, done.head)
            if done.continued is not None:
                self._known[room_id] = done.continued
        return done

    async def _ask(self, unsigned: Sequence[Event], server: PolicyServer) -> dict[str, Event]:
        """The events with the policy server's signature, those that it signs.

        A server that cannot be asked about some is not waited for with the others.
        """
        policies = self._appender.policies
        signed: dict[str, Event] = {}
        is_away = False

        async def ask(event: Event) -> None:
            nonlocal is_away
            if policies is None:
                return
            try:
                signed[event.event_id] = await policies.signed(event, server)
            except errors.MatrixError as refusal:
                is_away = is_away or refusal.status >= 500
                _log.info(
                    "event not recommended",
                    room_id=event.room_id,
                    event_id=event.event_id,
                    policy_server=server.name,
                    reason=refusal.error,
                )

        for start in range(0, len(unsigned), _ASKED_AT_ONCE):
            if is_away:
                break
            part = unsigned[start : start + _ASKED_AT_ONCE]
            await gatherResults([Deferred.fromCoroutine(ask(event)) for event in part])
        return signed

    async def add_outliers(
        self, room_id: str, received: Sequence[Event], noted: Noted | None = None
    ) -> dict[str, Judged]:
        """Store events of auth chains and states, without a place in the timeline.

        Parameters: `noted`, if none of the events was stored a moment ago, takes note of them.

        Raises BadState if the room is known with another version.
        """
        if not received:
            return {}
        now_ms = int(self._clock.seconds() * 1000)
        absent = {event.event_id for event in received} if noted is not None else set()

        def work(txn: Transaction) -> tuple[Outliers, int, int]:
            version = known_version(received)
            draft = open_room(txn, self._context, room_id, version, now_ms)
            room_nid = draft.row.room_nid
            tree = RoomTree(txn, self._context.states, room_nid, version)
            numbers, name = self._context.event_numbers, draft.server_name
            outliers = Outliers(txn, room_nid, tree, numbers, name)
            content_version = noted.version(txn, room_nid) if noted is not None else 0
            try:
                outliers.add(received, absent)
            except IntegrityViolation:
                # Somebody was faster: the next try looks them up.
                absent.clear()
                raise
            return outliers, room_nid, content_version

        outliers, room_nid, content_version = await self._retried(work)
        if noted is not None:
            noted.add(room_nid, content_version, outliers.inserted, outliers.rejected)
        return outliers.judged

    async def add_history(
        self,
        room_id: str,
        received: Sequence[Event],
        states: Mapping[str, KnownState] = NO_STATES,
    ) -> dict[str, Judged]:
        """Add events that are older than what is known: nobody is told, the head stays.

        Parameters: as in `add`.
        """

        def work(txn: Transaction) -> dict[str, Judged]:
            receiving = self._open(txn, room_id, live=False)
            if receiving is None:
                return _unknown_room(received)
            receiving.run(received, states, False)
            return receiving.finish(self._write_history(txn, receiving))

        judged = await self._retried(work)
        self._tell(room_id, judged, [])
        return judged

    async def adopt(
        self,
        join: Event,
        version: RoomVersion,
        state: Sequence[Event],
        auth_chain: Sequence[Event],
        *,
        servers: Collection[str] | None = None,
        partial: bool = False,
        within: Callable[[Transaction, int], None] | None = None,
    ) -> Judged:
        """Enter a room by a join of a local user, with the state before it.

        Parameters: `partial`, whether `state` leaves out members; `servers`, the other servers in
        the room, for then; `within`, more writing in the same transaction, called with the room's
        number before the positions are taken.

        Raises BadState: what the other server gave cannot be.
        """
        now_ms = int(self._clock.seconds() * 1000)
        entry = Entry(join, version, state, auth_chain, servers, partial)

        def work(txn: Transaction) -> tuple[Judged, list[WrittenRoom]]:
            blocking.check(txn, join.room_id)
            if within is not None:
                draft = open_room(txn, self._context, join.room_id, version, now_ms)
                within(txn, draft.row.room_nid)
            return adopt(txn, self._context, entry, now_ms)

        judged, written = await self._retried(work)
        self._tell(join.room_id, {join.event_id: judged}, written)
        return judged

    def _open(
        self, txn: Transaction, room_id: str, *, live: bool, presumed: Familiar | None = None
    ) -> Receiving | None:
        origin = presumed.origin if presumed is not None else None
        context, found = self._context, room_notes.lock(txn, room_id, origin)
        if presumed is not None and (found is None or not presumed.is_proved(*found)):
            raise NotAsPresumed
        if found is None:
            return None
        row, notes = found
        draft = draft_at(txn, context, row)
        if draft is None:
            return None
        appointed = draft.state([POLICY]).get(POLICY) if live else None
        policy = None
        if appointed is not None:
            policy = policy_in_force(txn, row.room_nid, appointed, draft.server_name)
        return Receiving(
            txn,
            RoomTree(txn, context.states, row.room_nid, draft.version),
            draft,
            lambda count: context.event_numbers.take(txn, count),
            notes,
            live=live,
            policy=policy,
            signer=context.signer,
            now_ms=int(self._clock.seconds() * 1000),
        )

    def _write(self, txn: Transaction, receiving: Receiving) -> list[WrittenRoom]:
        draft, context = receiving.draft, self._context
        receiving.tree.save()
        _note_gaps(txn, receiving)
        judged = unread.judge(txn, context.crowds, [draft]) if draft.added else {}
        places = [(draft, receiving.rooted)]
        held = receiving.notes.held
        written = insert(txn, context.states, judged, places, searchable.AtOnce, held)
        sticky.keep_received(txn, receiving, written, receiving.now_ms)
        behind = {gap.successor for gap in receiving.new_gaps}
        if behind:
            entries = [entry for room in written for entry in room.entries]
            breaks = [entry.pos for entry in entries if entry.event.event_id in behind]
            gaps.add_breaks(txn, draft.row.room_nid, breaks)
        return written

    def _write_history(self, txn: Transaction, receiving: Receiving) -> dict[str, int]:
        """Write events before all others; their positions by ID."""
        draft, rooted = receiving.draft, receiving.rooted
        receiving.tree.save()
        _note_gaps(txn, receiving)
        relations = relations_among(txn, [item.event for item in rooted])
        pos = min(timeline.lowest(txn, draft.row.room_nid), 0)
        positions: dict[str, int] = {}
        for item in reversed(rooted):
            if item.status == ACCEPTED:
                pos -= 1
                positions[item.event.event_id] = pos
        rows = {}
        for item in rooted:
            name = item.event.event_id
            place = positions.get(name)
            rows[name] = event_row(item, draft.row.room_nid, place, relations.get(name))
        events.insert(txn, [rows[i.event.event_id] for i in rooted if not i.is_known])
        events.overwrite(txn, [rows[i.event.event_id] for i in rooted if i.is_known])
        searchable.add_fetched(txn, rows.values())
        states, redacts = self._context.states, False
        for item in rooted:
            if item.status == ACCEPTED and item.event.redacts is not None:
                redact.apply(txn, states, item.event, rows[item.event.event_id])
                redacts = True
        for redactions in events.held_redactions(txn, list(positions)).values():
            for redaction_id in redactions:
                redact.apply_held(txn, states, draft.row.room_nid, redaction_id, draft.version)
        if redacts:
            # What processes remember of the current state is out of date.
            rooms.put(txn, [draft.row._replace(head_version=draft.row.head_version + 1)])
        return positions

    async def _retried(self, work: Callable[[Transaction], T]) -> T:
        for tries in range(1, MAX_TRIES + 1):
            try:
                return await self._db.write(work)
            except (IntegrityViolation, CommitUnknown):
                # Another process stored one of the events at the same moment, or the connection
                # was lost: what is there already is answered from the database.
                if tries == MAX_TRIES:
                    raise
        raise AssertionError("unreachable")

    def _tell(
        self, room_id: str, judged: Mapping[str, Judged], written: Sequence[WrittenRoom]
    ) -> None:
        for room in written:
            for callback in self._appender.on_written:
                callback(room)
        for entry in judged.values():
            if entry.status not in (ACCEPTED, NOT_ADDED) and entry.is_new:
                _log.info(
                    "event not accepted",
                    room_id=room_id,
                    event_id=entry.event_id,
                    status=entry.status,
                    reason=entry.reason,
                )
        if self._observe is not None:
            for status, count in Counter(e.status for e in judged.values() if e.is_new).items():
                self._observe(status, count)


def _unknown_room(received: Sequence[Event]) -> dict[str, Judged]:
    reason = "This server is not in the room."
    return {event.event_id: Judged(event.event_id, NOT_ADDED, reason) for event in received}


class _SentBefore(Exception):
    """A request with the same transaction was faster."""

    def __init__(self, event_id: str) -> None:
        super().__init__("the same transaction made an event meanwhile")
        self.event_id = event_id


def _as_requested(txn: Transaction, receiving: Receiving, request: AppendRequest) -> None:
    """What a request of a client wants done with its events. Raises _SentBefore."""
    row = receiving.draft.row
    if request.transaction is not None:
        keys = [(row.room_nid, item.event.sender, request.transaction) for item in receiving.rooted]
        for event_id in events.by_transaction(txn, keys).values():
            raise _SentBefore(event_id)
    if request.within is not None:
        request.within(txn, row.room_nid, row.room_id)
    for item in receiving.rooted:
        if item.event.event_id in receiving.judged:
            item.transaction = request.transaction


def _note_gaps(txn: Transaction, receiving: Receiving) -> None:
    room_nid = receiving.draft.row.room_nid
    gaps.close(txn, room_nid, receiving.closed_gaps)
    gaps.add(txn, room_nid, receiving.new_gaps)
