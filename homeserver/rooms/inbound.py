"""Events that other servers send in transactions, on their way into rooms.

1. What can be told without reading the event's proofs: its room is known, this server is in it,
   the room's ACL lets the sender in.
2. Form, signatures and hashes of all of them are checked in bulk (`federation.client.pdus`).
3. If nothing of the sender waits for the room, the events are added at once, and the answer has
   the verdicts.
4. What lacks events before it, or comes while others of the sender wait, is put into a table,
   where it is as safe as if it had been added (`homeserver.rooms.backlog`).

A room that is slow keeps neither the other rooms nor the answer waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import structlog
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from federation.client.pdus import CheckedPdu
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject
from homeserver.in_time import in_time
from homeserver.rooms import open_to
from homeserver.rooms.backlog import Backlog, Verdict
from homeserver.rooms.familiar import Familiar, FamiliarRooms, NotAsPresumed
from homeserver.rooms.open_to import OpenRoom
from homeserver.rooms.pdu_names import (
    computed_id,
    ends_membership,
    id_of,
    is_of,
    named_in,
    room_of,
)
from homeserver.rooms.receive import Keeper
from storage import received, residence
from storage.database import Database
from storage.errors import StorageError
from storage.events import MISPLACED, REJECTED
from storage.transaction import Transaction

PATIENCE_S = 10.0
"""Seconds that an answer waits for a room; then its events wait in the table."""
KEY_PATIENCE_S = 25.0
"""Seconds that an answer waits for the keys of third servers."""
MAX_QUEUED = 4
"""Additions to one room in this process; what comes then waits in the table."""

_log = structlog.get_logger(__name__)


class EventReceiver(Protocol):
    """What is needed of `homeserver.rooms.receive.Receiver`."""

    async def add(
        self,
        room_id: str,
        events: Sequence[Event],
        /,
        *,
        keeper: Keeper | None = None,
        presumed: Familiar | None = None,
    ) -> Mapping[str, Verdict]: ...


class Checker(Protocol):
    """What is needed of `federation.client.pdus.PduChecker`."""

    async def check(self, pdus: Sequence[Any], version: RoomVersion) -> list[CheckedPdu]: ...


class Withdrawals(Protocol):
    """What is needed of `homeserver.rooms.received_invites.ReceivedInvites`."""

    async def withdrawn(self, origin: str, event: Event) -> bool: ...


class Joins(Protocol):
    """What is needed of `homeserver.rooms.remote_join.RemoteJoins`."""

    async def settled(self, room_ids: Collection[str]) -> bool: ...


Answers = dict[str, JsonObject]
"""By event ID: {}, or {"error": why}."""


class Keeping(Protocol):
    """Stores the answer to a transaction together with its events, where that can be done."""

    @property
    def txn_id(self) -> str:
        """The sender's ID of the transaction."""

    @property
    def may_be_known(self) -> bool:
        """Whether this process has probably answered it before."""

    async def look_up(self) -> bool:
        """Whether the transaction was answered before: ask the database."""

    def answered(self, answer: str | None) -> bool:
        """Whether it was: the answer that the database has."""

    def begin(self) -> None:
        """Nothing is stored yet: a transaction of the database begins, perhaps not the first."""

    def store(self, txn: Transaction, answers: Answers) -> None:
        """Store it."""

    def committed(self) -> None:
        """What `store` did last is there for good. Called on the reactor thread."""


class _Pdu(NamedTuple):
    """A PDU of a room that its sender may speak of."""

    pdu: JsonObject
    found: OpenRoom
    version: RoomVersion


class _Read(NamedTuple):
    """Sound events by room ID, in order, and the answers for the others."""

    checked: dict[str, tuple[OpenRoom, list[Event]]]
    refused: Answers


class Inbound:
    """Takes the events of transactions."""

    def __init__(
        self,
        db: Database,
        checker: Checker,
        receiver: EventReceiver,
        backlog: Backlog,
        withdrawals: Withdrawals,
        clock: IReactorTime,
        server_name: str,
    ) -> None:
        self._db = db
        self._checker = checker
        self._receiver = receiver
        self._backlog = backlog
        self._withdrawals = withdrawals
        self._clock = clock
        self._server_name = server_name
        self._adding: Counter[str] = Counter()
        self._familiar = FamiliarRooms()
        self.caches = self._familiar.caches
        self.joins: Joins | None = None
        """Knows which rooms this server is entering: others send events there already."""

    async def receive(
        self, origin: str, pdus: Sequence[Any], keeping: Keeping | None = None
    ) -> Answers:
        """What became of the PDUs that a server sent; the caller bounds their number.

        PDUs that have no event ID are not answered. What is answered with {} is stored; so is the
        answer itself, if `keeping` is told so at the end. Nothing is done if `keeping` finds that
        the transaction was answered before. Raises StorageError if the database is away.
        """
        named = [room_of(pdu) for pdu in pdus]
        room_ids = {room_id for room_id in named if room_id is not None}
        presumed = self._presumed(origin, room_ids, keeping)
        before: dict[str, OpenRoom] = {}
        read: _Read | None = None
        if presumed is not None:
            room_id = presumed.found.room.room_id
            before[room_id] = presumed.found
            read = await self._read(origin, pdus, named, before)
            try:
                return await self._deliver(origin, read, set(), keeping, presumed)
            except NotAsPresumed:
                self._familiar.disproved(origin, room_id)
        elif len(room_ids) != 1 and keeping is not None and await keeping.look_up():
            return {}
        if not room_ids:
            return {name: _error("The event names no room.") for name in named_in(pdus)}
        looked_up = await self._look_up(origin, room_ids, keeping)
        if looked_up is None:
            return {}
        found, waiting = looked_up
        strange = [each for each in room_ids if each not in found or not found[each].room.is_here]
        if strange and self.joins is not None and await self.joins.settled(strange):
            found, waiting = await self._look_up(origin, room_ids, None) or (found, waiting)
        if read is None or found != before:
            read = await self._read(origin, pdus, named, found)
        return await self._deliver(origin, read, waiting, keeping, None)

    def _presumed(
        self, origin: str, room_ids: Collection[str], keeping: Keeping | None
    ) -> Familiar | None:
        """The only room of a new transaction, if it is presumed to be as it was found before."""
        if len(room_ids) != 1 or (keeping is not None and keeping.may_be_known):
            return None
        (room_id,) = room_ids
        if self._adding[room_id] >= MAX_QUEUED:
            return None
        return self._familiar.get(origin, room_id)

    async def _read(
        self,
        origin: str,
        pdus: Sequence[Any],
        named: Sequence[str | None],
        found: Mapping[str, OpenRoom],
    ) -> _Read:
        """The PDUs that may be added, checked. `named` has the room of each, `found` those that
        are known."""
        answers: Answers = {}
        good: list[_Pdu] = []
        for pdu, room_id in zip(pdus, named, strict=True):
            room = found.get(room_id) if room_id is not None else None
            refusal = self._refusal(pdu, room)
            if refusal is None and room is not None:
                good.append(_Pdu(pdu, room, ROOM_VERSIONS[room.room.version]))
                continue
            version = ROOM_VERSIONS.get(room.room.version) if room is not None else None
            name = id_of(pdu, version)
            if name is not None:
                answers[name] = _error(refusal or "The room is unknown.")
        return _Read(await self._check(origin, good, answers), answers)

    async def _look_up(
        self, origin: str, room_ids: set[str], keeping: Keeping | None
    ) -> tuple[dict[str, OpenRoom], set[int]] | None:
        """Those of the rooms that are known, and the numbers of those with a backlog.

        None if it is one, and `keeping` finds that the transaction was answered before.
        """
        if len(room_ids) > 1:
            return await self._db.read(_rooms, origin, room_ids)
        (room_id,) = room_ids
        txn_id = keeping.txn_id if keeping is not None else None
        # Which room it is and whether there is an answer are asked together.
        seen = await self._db.query(residence.seen_room, origin, str(room_id), txn_id)
        if keeping is not None and (
            keeping.answered(seen.answer) if seen is not None else await keeping.look_up()
        ):
            return None
        if seen is None:
            return {}, set()
        waiting = {seen.room.room_nid} if seen.has_backlog else set()
        found = open_to.as_seen(origin, seen)
        self._familiar.note(origin, seen, found)
        return {room_id: found}, waiting

    def _refusal(self, pdu: Any, found: OpenRoom | None) -> str | None:
        if found is None or found.room.version not in ROOM_VERSIONS:
            return "This server is not in the room."
        if not found.room.is_here:
            if ends_membership(pdu, self._server_name):
                return None
            return "This server is not in the room."
        if not found.is_allowed:
            return "The room's access control list denies the sending server."
        return None

    async def _check(
        self, origin: str, pdus: Sequence[_Pdu], answers: Answers
    ) -> dict[str, tuple[OpenRoom, list[Event]]]:
        """Sound events by room ID, in order; refused ones go into `answers`."""
        groups: dict[tuple[str, bool], list[_Pdu]] = {}
        for item in pdus:
            # The sender's own keys are at hand; those of others may take their time.
            is_own = is_of(origin, item.pdu)
            groups.setdefault((item.version.identifier, is_own), []).append(item)
        results = await _all(self._check_group(group) for group in groups.values())
        by_room: dict[str, tuple[OpenRoom, list[Event]]] = {}
        for group, checked in zip(groups.values(), results, strict=True):
            for item, result in zip(group, checked, strict=True):
                if result.event is None:
                    name = result.event_id or computed_id(item.pdu, item.version)
                    if name is not None:
                        answers[name] = _error(result.error or "The event is refused.")
                    continue
                room_id = item.found.room.room_id
                by_room.setdefault(room_id, (item.found, []))[1].append(result.event)
        return {
            room_id: (room, list({event.event_id: event for event in events}.values()))
            for room_id, (room, events) in by_room.items()
        }

    async def _check_group(self, group: Sequence[_Pdu]) -> list[CheckedPdu]:
        version = group[0].version

        async def check() -> list[CheckedPdu]:
            return await self._checker.check([item.pdu for item in group], version)

        work = Deferred.fromCoroutine(check())
        try:
            return await work.addTimeout(KEY_PATIENCE_S, self._clock)
        except DeferredTimeout:
            return [
                CheckedPdu(None, None, "The keys of the event's server were not found in time.")
                for _ in group
            ]

    async def _deliver(
        self,
        origin: str,
        read: _Read,
        waiting: set[int],
        keeping: Keeping | None,
        presumed: Familiar | None,
    ) -> Answers:
        """Add what was read to its rooms, or have it wait; the answers.

        Raises NotAsPresumed: nothing was done, as far as is known.
        """
        checked, answers = read.checked, dict(read.refused)
        # With events of one room all of the answer is known where they are added.
        keeper = _Keeper(keeping, dict(answers)) if keeping and len(checked) == 1 else None

        async def one(found: OpenRoom, events: list[Event]) -> Answers:
            room_nid = found.room.room_nid
            if not found.room.is_here:
                return await self._withdraw(origin, events)
            if room_nid in waiting or self._adding[found.room.room_id] >= MAX_QUEUED:
                return await self._stage_unseen(origin, found, events, presumed)
            return await self._add(origin, found, events, keeper, presumed)

        for part in await _all(one(found, events) for found, events in checked.values()):
            answers.update(part)
        refused = [answer["error"] for answer in answers.values() if "error" in answer]
        if refused:
            reasons = sorted(set(refused))[:3]
            _log.info(
                "events refused",
                origin=origin,
                events=len(answers),
                refused=len(refused),
                reasons=reasons,
            )
        return answers

    async def _withdraw(self, origin: str, events: Sequence[Event]) -> Answers:
        answers: Answers = {}
        for event in events:
            done = await self._withdrawals.withdrawn(origin, event)
            refusal = "This server is not in the room."
            answers[event.event_id] = {} if done else _error(refusal)
        return answers

    async def _add(
        self,
        origin: str,
        found: OpenRoom,
        events: list[Event],
        keeper: _Keeper | None,
        presumed: Familiar | None,
    ) -> Answers:
        room_id, room_nid = found.room.room_id, found.room.room_nid

        async def add() -> Mapping[str, Verdict]:
            self._adding[room_id] += 1
            try:
                return await self._receiver.add(room_id, events, keeper=keeper, presumed=presumed)
            finally:
                self._adding[room_id] -= 1
                self._adding += Counter()

        is_late = False

        def failed(failure: Failure) -> Failure:
            if is_late:
                _log.warning("events not added yet", room_id=room_id, reason=str(failure.value))
            return failure

        adding = Deferred.fromCoroutine(add()).addErrback(failed)
        try:
            verdicts = await in_time(adding, self._clock, PATIENCE_S)
        except TimeoutError:
            # What is added meanwhile is found to be there when it is tried again.
            is_late = True
            return await self._stage_unseen(origin, found, events, presumed)
        except (StorageError, NotAsPresumed):
            raise
        except Exception as error:
            _log.error("events not added", room_id=room_id, origin=origin, exc_info=error)
            return await self._stage_unseen(origin, found, events, presumed)
        answers, lacking = _answered(events, verdicts)
        if keeper is not None:
            keeper.committed()
        if lacking:
            answers |= await self._stage(room_nid, origin, lacking)
        return answers

    async def _stage_unseen(
        self, origin: str, found: OpenRoom, events: list[Event], presumed: Familiar | None
    ) -> Answers:
        """Have events wait; it is not asked again then whether they may come from there."""
        room_id, room_nid = found.room.room_id, found.room.room_nid
        if presumed is not None:
            looked_up = await self._look_up(origin, {room_id}, None)
            if looked_up is None or looked_up[0].get(room_id) != found:
                raise NotAsPresumed
        return await self._stage(room_nid, origin, events)

    async def _stage(self, room_nid: int, origin: str, events: Sequence[Event]) -> Answers:
        kept = await self._backlog.stage(room_nid, origin, events)
        return {
            event.event_id: {}
            if event.event_id in kept
            else _error("Too many events wait to be added.")
            for event in events
        }


class _Keeper:
    """Stores the answer to a transaction with the events of it that are added.

    Parameters: `before`, the answer for those PDUs that are not.
    """

    def __init__(self, keeping: Keeping, before: Answers) -> None:
        self._keeping = keeping
        self._before = before
        self._has_stored = False

    def begin(self) -> None:
        """See `homeserver.rooms.receive.Keeper`."""
        self._has_stored = False
        self._keeping.begin()

    def keep(
        self, txn: Transaction, events: Sequence[Event], verdicts: Mapping[str, Verdict]
    ) -> None:
        """See `homeserver.rooms.receive.Keeper`."""
        answers, lacking = _answered(events, verdicts)
        if not lacking:
            self._keeping.store(txn, self._before | answers)
            self._has_stored = True

    def committed(self) -> None:
        """What was done last was committed."""
        if self._has_stored:
            self._keeping.committed()


def _answered(
    events: Sequence[Event], verdicts: Mapping[str, Verdict]
) -> tuple[Answers, list[Event]]:
    """The answers for the events that have one, and those that have to wait for others."""
    answers: Answers = {}
    lacking = []
    for event in events:
        verdict = verdicts.get(event.event_id)
        if verdict is None or verdict.status < 0:
            lacking.append(event)
        elif verdict.status in (REJECTED, MISPLACED):
            answers[event.event_id] = _error(verdict.reason or "The event is rejected.")
        else:
            answers[event.event_id] = {}
    return answers, lacking


def _rooms(
    txn: Transaction, origin: str, room_ids: set[str]
) -> tuple[dict[str, OpenRoom], set[int]]:
    found = open_to.look_up(txn, origin, room_ids)
    return found, received.with_backlog(
        txn, origin, [each.room.room_nid for each in found.values()]
    )


async def _all(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """The results of awaitables that run at the same time, once all have ended.

    Raises the first of their failures.
    """

    async def run(one: Awaitable[Any]) -> Any:
        return await one

    running = [Deferred.fromCoroutine(run(one)) for one in work]
    results = await DeferredList(running, consumeErrors=True)
    for is_success, result in results:
        if not is_success:
            result.raiseException()
    return [result for _, result in results]


def _error(reason: str) -> JsonObject:
    return {"error": reason}
