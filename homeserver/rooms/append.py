"""The append path: the one way by which this server's events get into rooms.

Requests wait in one queue. While a transaction runs, arrivals gather and share the next one
(group commit, across rooms); when none runs, a request is committed at once. Callers are answered
after the commit, so what was acknowledged is durable.

Of what gathered, plain messages to rooms that are in memory are built here and written by one
statement (`homeserver.rooms.plain`); the rest, and what was built on a head that another process
had moved on, is built in a transaction under the rooms' locks (`homeserver.rooms.commit`).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from homeserver.cache import Cache
from homeserver.core import errors
from homeserver.core.event import Event
from homeserver.core.policy import PolicyServer, needs_signature
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject
from homeserver.rooms.build import EventTemplate, LocalSigner
from homeserver.rooms.commit import (
    AppendContext,
    CachedHead,
    GroupResult,
    Job,
    PolicyNeeded,
    Proposal,
    commit_group,
    draft_template,
    propose,
)
from homeserver.rooms.plain import Plain, Sent, Told, prepare
from homeserver.rooms.requests import Appended, AppendRequest
from homeserver.rooms.unread import Crowds
from homeserver.rooms.write import WrittenRoom
from storage import events
from storage.appending import NotSimple
from storage.database import Database
from storage.errors import CommitUnknown, DatabaseUnavailable, IntegrityViolation, InvalidText
from storage.state import NumberBlocks, StateStore
from storage.transaction import Transaction

MAX_GROUP = 64
"""Requests in one transaction: building more messages would keep the reactor for too long."""

MAX_TRIES = 5
"""Of a transaction that makes rooms."""

MAX_CACHED_STATE = 2000
"""State events kept with one cached head."""

MAX_SENT = 10_000
"""Transactions of clients that are remembered, so that a repeated one is not tried again."""

SHARED_FOR = 1.0
"""Seconds for which a room that another process writes to is left to the general way."""


_log = structlog.get_logger(__name__)


class _Pretended(Exception):
    """Ends a transaction of which nothing is kept."""

    def __init__(self, proposal: Proposal) -> None:
        super().__init__("nothing of this is kept")
        self.proposal = proposal


class Observer(Protocol):
    """Told of every commit: for metrics.

    `way`: "plain" or "general"; "missed" for plain messages that have to go the general way.
    """

    def __call__(self, requests: int, way: str, /) -> None: ...


class Policies(Protocol):
    """What is needed of `federation.client.policy.PolicyCalls`."""

    async def signed(self, event: Event, server: PolicyServer, /) -> Event: ...


class Appender:
    """Adds events to rooms.

    Parameters:
        db: the database.
        signer: this server's name and key.
        clock: gives the time for `origin_server_ts`.
        states: the state trees.
        crowds: which rooms have users with push rules of their own.
        on_written: called on the reactor thread after a commit, with what it added; more can be
            added to the list later.
        observe: see `Observer`.
    """

    def __init__(
        self,
        db: Database,
        signer: LocalSigner,
        clock: IReactorTime,
        states: StateStore,
        crowds: Crowds,
        on_written: Sequence[Callable[[WrittenRoom], None]] = (),
        observe: Observer | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._heads: Cache[str, CachedHead] = Cache("room_heads", _head_size, share=0.5)
        self.caches = (self._heads, *crowds.caches)
        self.context = AppendContext(
            signer, states, NumberBlocks("event"), NumberBlocks("room", 10), crowds, self._heads
        )
        self.on_written = list(on_written)
        self._observe = observe
        self.on_messages: list[Told] = []
        """Told of plain messages, before anybody is hinted at them."""
        self.policies: Policies | None = None
        """Asks policy servers; set by the composition root."""
        self.add_signed: Callable[[AppendRequest, Proposal], Awaitable[Appended]] | None = None
        """Adds what they have signed."""
        self._sent: dict[int, None] = {}
        """Hashes of `Sent`, the oldest first."""
        self._shared: dict[str, float] = {}
        """Rooms that other processes write to, and until when to heed it."""
        self._pending: list[tuple[Job, Deferred[Appended]]] = []
        self._running = False
        self._idle: list[Deferred[None]] = []

    @property
    def server_name(self) -> str:
        """The domain of the events that are made here."""
        return self.context.signer.server_name

    async def append(self, request: AppendRequest) -> Appended:
        """Add events to a room.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` when the rules of the room or membership forbid it;
                what the request's own functions raise; 413 `M_TOO_LARGE`.
        """
        if request.pretend:
            return await self._pretend(request)
        job = self._job(request)
        waiter: Deferred[Appended] = Deferred()
        self._pending.append((job, waiter))
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run())
        try:
            return await waiter
        except PolicyNeeded:
            return await self._append_signed(request)

    async def propose(self, request: AppendRequest) -> Event:
        """Build, authorise and sign one event on the room's head, without adding it.

        Others have to sign it first, or to agree: it is added by `Receiver.add` then. The room's
        policy server has signed it, if there is one.

        Raises:
            MatrixError: as `append`; the refusal of the policy server.
        """
        proposal = await self._propose(request)
        if not proposal.events:
            raise errors.forbidden("There is nothing to change.")
        return proposal.events[-1]

    async def _propose(self, request: AppendRequest) -> Proposal:
        job = self._job(request)
        proposal = await self._db.write(lambda txn: propose(txn, self.context, job))
        server = proposal.policy
        if server is None:
            return proposal
        if self.policies is None:
            raise PolicyNeeded
        signed = [
            await self.policies.signed(event, server) if needs_signature(event) else event
            for event in proposal.events
        ]
        return replace(proposal, events=tuple(signed))

    async def _pretend(self, request: AppendRequest) -> Appended:
        """The answer to a shadow-banned user: refusals are real, events are not."""
        job = self._job(request)

        def work(txn: Transaction) -> None:
            raise _Pretended(propose(txn, self.context, job))

        try:
            await self._db.write(work)
        except _Pretended as pretended:
            return Appended(pretended.proposal.room_id, pretended.proposal.event_ids, 0)
        raise AssertionError("nothing was proposed")

    async def _append_signed(self, request: AppendRequest) -> Appended:
        """Append to a room whose policy server has to be asked before."""
        proposal = await self._propose(request)
        if not proposal.events:
            return Appended(proposal.room_id, proposal.event_ids, 0)
        if self.add_signed is None:
            raise PolicyNeeded
        return await self.add_signed(request, proposal)

    async def template(
        self, room_id: str, template: EventTemplate
    ) -> tuple[JsonObject, RoomVersion]:
        """An event on the room's head that another server may sign: without hashes, signatures
        and ID; with the room's version.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` when the rules forbid it, or the room is not known.
        """
        now_ms = int(self._clock.seconds() * 1000)
        return await self._db.write(
            lambda txn: draft_template(txn, self.context, room_id, template, now_ms)
        )

    def _job(self, request: AppendRequest) -> Job:
        suffix = secrets.token_urlsafe(18).replace("-", "A").replace("_", "B")
        return Job(
            request,
            int(self._clock.seconds() * 1000),
            f"!{suffix[:18]}:{self.server_name}",
            suffix,
        )

    async def drained(self) -> None:
        """Wait until everything that was asked for is committed: for a clean stop."""
        if self._running:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    async def _run(self) -> None:
        try:
            while self._pending:
                group = self._pending[:MAX_GROUP]
                del self._pending[:MAX_GROUP]
                await self._commit(group)
        finally:
            self._running = False
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    async def _commit(self, group: list[tuple[Job, Deferred[Appended]]]) -> None:
        plain = prepare(self.context, [job for job, _ in group], self._was_sent, self._is_shared)
        if not plain.rooms:
            await self._commit_general(group)
            return
        left = {id(job) for job in await self._commit_plain(plain, group)}
        if left:
            await self._commit_general([entry for entry in group if id(entry[0]) in left])

    async def _commit_plain(
        self, plain: Plain, group: list[tuple[Job, Deferred[Appended]]]
    ) -> list[Job]:
        """Write plain messages by one statement; what is left to be done of the group."""
        everything = [job for job, _ in group]
        try:
            added = await self._db.write_single(plain.statement(self.on_messages))
        except DatabaseUnavailable as problem:
            for _, waiter in group:
                _answer(waiter, problem)
            return []
        except Exception as problem:
            if isinstance(problem, CommitUnknown):
                plain.note_attempt()
            elif not isinstance(problem, (IntegrityViolation, InvalidText, NotSimple)):
                _log.warning("Messages could not be written by one statement", exc_info=problem)
            self._missed(plain)
            return everything
        if added.base is None:
            self._missed(plain, added.stale)
            return everything
        written, answers = plain.written(added.base)
        for room_id, head in plain.heads():
            self._heads[room_id] = head
        self._note_sent(plain)
        waiters = {id(job): waiter for job, waiter in group}
        self._tell(len(answers), "plain", written)
        for job, appended in answers:
            _answer(waiters[id(job)], appended)
        return plain.rest

    def _missed(self, plain: Plain, stale: Collection[int] = ()) -> None:
        self._forget(plain.jobs)
        until = self._clock.seconds() + SHARED_FOR
        if len(self._shared) > 1000:
            self._shared.clear()
        for room_id in plain.room_ids(stale):
            self._shared[room_id] = until
        if self._observe is not None:
            self._observe(len(plain.rows), "missed")

    def _is_shared(self, room_id: str) -> bool:
        until = self._shared.get(room_id)
        if until is None:
            return False
        if until > self._clock.seconds():
            return True
        del self._shared[room_id]
        return False

    def _note_sent(self, plain: Plain) -> None:
        for sent in plain.sent():
            self._sent[hash(sent)] = None
        while len(self._sent) > MAX_SENT:
            del self._sent[next(iter(self._sent))]

    def _was_sent(self, sent: Sent) -> bool:
        """Whether a message is surely or almost surely in its room."""
        return hash(sent) in self._sent

    def _tell(self, requests: int, way: str, written: Sequence[WrittenRoom]) -> None:
        if self._observe is not None:
            self._observe(requests, way)
        for room in written:
            for callback in self.on_written:
                callback(room)

    async def _commit_general(self, group: list[tuple[Job, Deferred[Appended]]]) -> None:
        jobs = [job for job, _ in group]
        try:
            result = await self._write(jobs)
        except Exception as problem:
            self._forget(jobs)
            if isinstance(problem, DatabaseUnavailable):
                # So for everybody: asking for each of them would take its time-out each time.
                for _, waiter in group:
                    _answer(waiter, problem)
                return
            if len(group) > 1:
                # One request that cannot be committed must not take the others with it.
                for entry in group:
                    await self._commit_general([entry])
                return
            _answer(group[0][1], problem)
            return
        for room_id, head in result.heads.items():
            self.keep_head(room_id, head)
        self._tell(len(group), "general", result.written)
        for (_, waiter), outcome in zip(group, result.outcomes, strict=True):
            _answer(waiter, outcome)

    async def _write(self, jobs: Sequence[Job]) -> GroupResult:
        last: list[GroupResult] = []

        def work(txn: Transaction) -> GroupResult:
            last[:] = [commit_group(txn, self.context, jobs)]
            return last[0]

        tries = 0
        while True:
            try:
                return await self._db.write(work)
            except IntegrityViolation:
                # Another process made a room of the same ID, the hash of its first event, in the
                # same millisecond. Now it can be seen, and the next try makes another.
                tries += 1
                if tries == MAX_TRIES or all(job.request.create is None for job in jobs):
                    raise
                self._forget(jobs)
            except CommitUnknown:
                # The connection was lost while committing: the events tell whether it happened.
                if last and await self._happened(last[0]):
                    return last[0]
                self._forget(jobs)

    async def _happened(self, result: GroupResult) -> bool:
        made = [entry.event.event_id for room in result.written for entry in room.entries]
        if not made:
            return True
        return await self._db.read(lambda txn: events.get(txn, made[0]) is not None)

    def keep_head(self, room_id: str, head: CachedHead) -> None:
        """Remember a head that was committed, for what is added to the room next."""
        if len(head.known) <= MAX_CACHED_STATE:
            self._heads[room_id] = head
        else:
            self._heads.pop(room_id, None)

    def _forget(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.request.room_id is not None:
                self._heads.pop(job.request.room_id, None)


def _head_size(room_id: str, head: CachedHead) -> int:
    # A parsed event of the usual size; the heads of active rooms are put in with each commit, and
    # looking into all events would cost more than the commit.
    return 500 + 3_500 * len(head.known)


def _answer(waiter: Deferred[Appended], outcome: Appended | Exception) -> None:
    # A client that went away cancelled its wait; its event is in the room all the same.
    if waiter.called:
        return
    if isinstance(outcome, Appended):
        waiter.callback(outcome)
    else:
        waiter.errback(outcome)
