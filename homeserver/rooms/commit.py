"""The append transaction: several requests to several rooms, committed as a group.

1. Lock the rooms (in one order everywhere).
2. For each request, in the order of arrival: answer repeated transactions from the log; let the
   events be built, checked and signed on the newest state (`homeserver.rooms.draft`).
3. Take positions from the clock, last, and write events, state nodes, projections, heads.

A request that breaks a rule fails alone. Nothing here touches the reactor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.cache import Cache
from homeserver.core import canonical, errors, state_tree
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.policy import POLICY, PolicyServer, needs_signature, policy_server
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import encode_base64, reference_hash
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms import sticky
from homeserver.rooms.build import EventTemplate, LocalSigner
from homeserver.rooms.draft import Fetch, Mark, RoomDraft
from homeserver.rooms.requests import Appended, AppendRequest, Succession
from homeserver.rooms.unread import Crowds
from homeserver.rooms.write import WrittenRoom, write_drafts
from storage import events, memberships, room_servers, rooms, state
from storage.rooms import RoomRow
from storage.state import NumberBlocks, StateStore
from storage.transaction import Transaction


@dataclass(slots=True)
class CachedHead:
    """A room's row and current state events, valid while the room has this `head_version`."""

    row: RoomRow
    """A room that was removed and is joined again has another number."""
    known: dict[StateKey, Event | None]


@dataclass(slots=True)
class Job:
    """A request on its way. `chosen_ids` are random names made outside: a retry must not change
    what it does."""

    request: AppendRequest
    now_ms: int
    new_room_id: str
    chosen_event_id: str
    """Suffix for event IDs in room versions where the origin chooses them."""
    perhaps: str | None = None
    """The event that an attempt made of which nobody knows whether it was committed."""


Outcome = Appended | MatrixError


@dataclass(slots=True)
class GroupResult:
    """What a transaction did."""

    outcomes: list[Outcome]
    heads: dict[str, CachedHead]
    written: list[WrittenRoom]


@dataclass(slots=True)
class AppendContext:
    """What the transaction needs besides the database."""

    signer: LocalSigner
    states: StateStore
    event_numbers: NumberBlocks
    room_numbers: NumberBlocks
    crowds: Crowds
    heads: Cache[str, CachedHead]
    """Cached heads by room ID; read only. Stale ones are noticed."""


@dataclass(slots=True)
class _Group:
    txn: Transaction
    context: AppendContext
    drafts: dict[str, RoomDraft] = field(default_factory=dict)
    earlier: dict[tuple[int, str, events.TransactionKey], str] = field(default_factory=dict)
    happened: set[str] = field(default_factory=set)
    """Events of attempts that were committed after all."""
    proposing: bool = False
    policy: PolicyServer | None = None
    """Of the room in which something is proposed."""


def commit_group(txn: Transaction, context: AppendContext, jobs: Sequence[Job]) -> GroupResult:
    """Append everything that may be appended; see the module."""
    group = _Group(txn, context)
    _lock_rooms(group, jobs)
    _find_earlier(group, jobs)
    outcomes: list[Outcome | tuple[RoomDraft, tuple[str, ...]]] = []
    for job in jobs:
        try:
            outcomes.append(_run(group, job))
        except MatrixError as refusal:
            outcomes.append(refusal)
    drafts = [draft for draft in group.drafts.values() if draft.added]
    written = write_drafts(txn, context.states, context.event_numbers, context.crowds, drafts)
    sticky.keep(txn, written, max(job.now_ms for job in jobs))
    positions = {entry.event.event_id: entry.pos for room in written for entry in room.entries}
    return GroupResult(
        [_outcome(outcome, positions) for outcome in outcomes],
        {draft.row.room_id: CachedHead(draft.row, draft.known) for draft in group.drafts.values()},
        written,
    )


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a request would make: `events` are new and not in the room; `policy` has to sign them.

    `event_ids` has also those of events that made new ones needless.
    """

    room_id: str
    event_ids: tuple[str, ...]
    events: tuple[Event, ...]
    policy: PolicyServer | None


class PolicyNeeded(MatrixError):
    """The room's policy server has to be asked before the events of a request are added."""

    def __init__(self) -> None:
        super().__init__(502, "M_UNKNOWN", "The room's policy server has to be asked first.")


def propose(txn: Transaction, context: AppendContext, job: Job) -> Proposal:
    """The events that a request makes, not added to the room. Raises MatrixError."""
    group = _Group(txn, context, proposing=True)
    _lock_rooms(group, [job])
    _find_earlier(group, [job])
    draft, event_ids = _run(group, job)
    made = tuple(new.event for new in draft.added)
    return Proposal(draft.row.room_id, event_ids, made, group.policy)


def draft_template(
    txn: Transaction, context: AppendContext, room_id: str, template: EventTemplate, now_ms: int
) -> tuple[JsonObject, RoomVersion]:
    """An event of another server on the room's head, still to be signed. Raises MatrixError."""
    draft = open_draft(txn, context, room_id)
    if draft is None:
        raise errors.forbidden("You are not in this room, or it does not exist.")
    return draft.template(template, now_ms), draft.version


def open_draft(txn: Transaction, context: AppendContext, room_id: str) -> RoomDraft | None:
    """The room of this ID, locked; None if there is no head to build on."""
    return _open(txn, context, [room_id]).get(room_id)


def _outcome(
    outcome: Outcome | tuple[RoomDraft, tuple[str, ...]], positions: Mapping[str, int]
) -> Outcome:
    if not isinstance(outcome, tuple):
        return outcome
    draft, event_ids = outcome
    last = max((positions.get(event_id, 0) for event_id in event_ids), default=0)
    return Appended(draft.row.room_id, event_ids, last)


def _lock_rooms(group: _Group, jobs: Sequence[Job]) -> None:
    room_ids = {job.request.room_id for job in jobs if job.request.room_id is not None}
    room_ids |= {job.request.succession.old_room_id for job in jobs if job.request.succession}
    if not room_ids:
        return
    group.drafts |= _open(group.txn, group.context, room_ids)


def _open(
    txn: Transaction, context: AppendContext, room_ids: Collection[str]
) -> dict[str, RoomDraft]:
    drafts = {}
    for room_id, row in rooms.lock(txn, room_ids).items():
        draft = draft_at(txn, context, row)
        if draft is not None:
            drafts[room_id] = draft
    return drafts


def draft_at(txn: Transaction, context: AppendContext, row: RoomRow) -> RoomDraft | None:
    """A draft of a room whose row is locked; None if there is no head to build on."""
    version = ROOM_VERSIONS.get(row.version)
    if version is None or row.state_root is None:
        # A room that only was joined or invited to elsewhere has none.
        return None
    cached = context.heads.get(row.room_id)
    fresh = cached is not None and (cached.row.room_nid, cached.row.head_version) == (
        row.room_nid,
        row.head_version,
    )
    known = dict(cached.known) if cached is not None and fresh else {}
    return draft_of(txn, context, row, version, known)


def draft_of(
    txn: Transaction,
    context: AppendContext,
    row: RoomRow,
    version: RoomVersion,
    known: dict[StateKey, Event | None],
) -> RoomDraft:
    """A draft of a room whose row is locked. `known`: what is known of its current state."""
    return RoomDraft(
        row,
        version,
        known,
        _fetcher(txn, row.room_nid, version),
        _hasher(txn, version),
        context.signer.server_name,
    )


def _fetcher(txn: Transaction, room_nid: int, version: RoomVersion) -> Fetch:
    def fetch(keys: Collection[StateKey]) -> dict[StateKey, Event]:
        rows = state.current(txn, room_nid, keys)
        return {key: Event.from_json(row.json, version, row.event_id) for key, row in rows.items()}

    return fetch


def _hasher(txn: Transaction, version: RoomVersion) -> Callable[[Collection[str]], dict[str, str]]:
    def hashes(event_ids: Collection[str]) -> dict[str, str]:
        rows = events.get_many(txn, event_ids)
        return {
            name: encode_base64(reference_hash(json.loads(row.json), version))
            for name, row in rows.items()
        }

    return hashes


def _find_earlier(group: _Group, jobs: Sequence[Job]) -> None:
    wanted = []
    for job in jobs:
        transaction, room_id = job.request.transaction, job.request.room_id
        if transaction is not None and room_id in group.drafts:
            row = group.drafts[room_id].row
            wanted.append((row.room_nid, _only_sender(job.request), transaction))
    group.earlier = events.by_transaction(group.txn, wanted)
    attempts = [job.perhaps for job in jobs if job.perhaps is not None]
    if attempts:
        # The rooms are locked: what is not there now never will be, as the head moves on.
        group.happened.update(events.get_many(group.txn, attempts))


def _only_sender(request: AppendRequest) -> str:
    if callable(request.templates) or len(request.templates) != 1:
        raise ValueError("a request with a transaction has exactly one template")
    return request.templates[0].sender


def _run(group: _Group, job: Job) -> tuple[RoomDraft, tuple[str, ...]]:
    request = job.request
    if request.succession is not None:
        return _succeed(group, job, request.succession)
    if request.room_id is None:
        draft = _new_room(group, job)
    else:
        found = group.drafts.get(request.room_id)
        if found is None:
            raise errors.forbidden("You are not in this room, or it does not exist.")
        draft = found
    if job.perhaps in group.happened:
        return draft, (job.perhaps,)
    key = None
    if request.transaction is not None:
        key = (draft.row.room_nid, _only_sender(request), request.transaction)
        if key in group.earlier:
            return draft, (group.earlier[key],)
    mark = draft.mark()
    event_ids: tuple[str, ...] = ()
    try:
        event_ids = _add_all(group, draft, job)
        _mind_policy(group, draft, mark)
        if request.within is not None:
            _within(group.txn, request.within, draft)
    except MatrixError:
        draft.back(mark)
        raise
    if draft.is_new:
        group.drafts[draft.row.room_id] = draft
    if key is not None:
        group.earlier[key] = event_ids[0]
    return draft, event_ids


def _within(
    txn: Transaction, within: Callable[[Transaction, int, str], None], draft: RoomDraft
) -> None:
    # A refusal must undo what the function wrote, and nothing of the other requests.
    txn.execute("SAVEPOINT request")
    try:
        within(txn, draft.row.room_nid, draft.row.room_id)
    except MatrixError:
        txn.execute("ROLLBACK TO SAVEPOINT request")
        raise
    finally:
        txn.execute("RELEASE SAVEPOINT request")


def _mind_policy(group: _Group, draft: RoomDraft, mark: Mark) -> None:
    """See to it that a policy server is asked about what was added. Raises PolicyNeeded."""
    _, _, length, changed = mark
    is_set = POLICY in draft.changed and POLICY not in changed
    event = draft.changed[POLICY] if is_set else draft.known.get(POLICY)
    if event is None or draft.is_new:
        return
    server = policy_in_force(group.txn, draft.row.room_nid, event, draft.server_name)
    if server is None or not any(needs_signature(e.event) for e in draft.added[length:]):
        return
    if not group.proposing:
        raise PolicyNeeded
    group.policy = server


def policy_in_force(
    txn: Transaction, room_nid: int, event: Event, server_name: str
) -> PolicyServer | None:
    """The policy server that an `m.room.policy` event appoints, if it has a user in the room."""
    server = policy_server(event.content)
    if server is None:
        return None
    if server.name == server_name:
        present = bool(memberships.local_joined(txn, room_nid))
    else:
        present = room_servers.is_in(txn, room_nid, server.name)
    return server if present else None


def _succeed(group: _Group, job: Job, succession: Succession) -> tuple[RoomDraft, tuple[str, ...]]:
    """Make a room in the place of another."""
    old = group.drafts.get(succession.old_room_id)
    if old is None:
        raise errors.forbidden("You are not in this room, or it does not exist.")
    new = _new_room(group, job)
    mark = old.mark()
    try:
        if new.version.room_id_is_create_hash:
            made = _add(group, new, job, succession.begin(None))
            _add(group, old, job, succession.retire(old, new.row.room_id), len(made))
        else:
            last = _add(group, old, job, succession.retire(old, job.new_room_id))
            made = _add(group, new, job, succession.begin(last[0]), len(last))
        if job.request.within is not None:
            _within(group.txn, job.request.within, new)
    except MatrixError:
        old.back(mark)
        raise
    group.drafts[new.row.room_id] = new
    return new, made


def _add_all(group: _Group, draft: RoomDraft, job: Job) -> tuple[str, ...]:
    request = job.request
    if request.guard is not None:
        request.guard(draft)
    templates = request.templates(draft) if callable(request.templates) else request.templates
    return _add(group, draft, job, templates)


def _add(
    group: _Group,
    draft: RoomDraft,
    job: Job,
    templates: Sequence[EventTemplate],
    first_number: int = 0,
) -> tuple[str, ...]:
    """Add events to a draft; `first_number` keeps the IDs of one job apart."""
    request = job.request
    signer = group.context.signer
    made = []
    for number, template in enumerate(templates, first_number):
        if request.idempotent and template.state_key is not None:
            current = draft.get(template.type, template.state_key)
            if (
                current is not None
                and current.sender == template.sender
                and _is_same(current.content, template.content)
            ):
                made.append(current.event_id)
                continue
        chosen = None
        if draft.version.event_format == 1:
            chosen = f"${job.chosen_event_id}{number}:{signer.server_name}"
        if draft.is_new and not draft.added and draft.version.room_id_is_create_hash:
            event = _create(group, draft, template, job.now_ms)
        else:
            event = draft.add(template, signer, job.now_ms, request.transaction, chosen)
        made.append(event.event_id)
    return tuple(made)


def _create(group: _Group, draft: RoomDraft, template: EventTemplate, now_ms: int) -> Event:
    """Begin a room whose ID is the hash of this event.

    Somebody may create several rooms alike in one millisecond: they differ by their times then,
    or all of them would be one room.
    """
    while True:
        mark = draft.mark()
        event = draft.add(template, group.context.signer, now_ms)
        taken = event.room_id in group.drafts or rooms.nid(group.txn, event.room_id) is not None
        if not taken:
            return event
        draft.back(mark)
        now_ms += 1


def _is_same(one: JsonObject, other: JsonObject) -> bool:
    # Python takes 1, 1.0 and true for equal; JSON does not.
    if one != other:
        return False
    try:
        return canonical.encode_lenient(one) == canonical.encode_lenient(other)
    except canonical.CanonicalJSONError:
        return False


def _new_room(group: _Group, job: Job) -> RoomDraft:
    version = job.request.create
    if version is None:
        raise ValueError("a new room needs a version")
    row = RoomRow(
        room_nid=group.context.room_numbers.take(group.txn, 1)[0],
        room_id="" if version.room_id_is_create_hash else job.new_room_id,
        version=version.identifier,
        head_version=0,
        depth=0,
        extremities=(),
        state_root=state_tree.EMPTY,
        state_version=0,
        notify_total=0,
        highlight_total=0,
        last_pos=0,
        created_ts=job.now_ms,
        remote_servers=0,
    )
    fetch = _fetcher(group.txn, row.room_nid, version)
    return RoomDraft(
        row,
        version,
        {},
        fetch,
        _hasher(group.txn, version),
        group.context.signer.server_name,
        is_new=True,
    )
