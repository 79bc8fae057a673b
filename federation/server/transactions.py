"""Transactions of other servers (Server-Server API, "Transactions").

A transaction is worked on once, by one process, and every repetition gets the same answer; those
of one server are worked on one after the other in a process. The answer is given when everything
in it is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from federation.server.edus.registry import EduHandlers
from homeserver.core.errors import MatrixError, bad_json, invalid_param, limit_exceeded, unavailable
from homeserver.core.ids import ServerName
from homeserver.core.types import JsonObject
from homeserver.rooms.inbound import Answers, Inbound
from homeserver.semaphore import Semaphore
from homeserver.web.endpoint import Auth, RawJson, endpoint
from homeserver.web.responses import encode_json
from storage import received
from storage.database import Database
from storage.errors import StorageError
from storage.machine import Machine
from storage.transaction import Transaction

MAX_PDUS = 50
MAX_EDUS = 100
MAX_TXN_ID_BYTES = 255
MAX_BODY = 200 * 65_536
MAX_QUEUED = 10
"""Transactions of one server that wait in a process; more are refused."""
RETRY_AFTER_MS = 1000
WAIT_FOR_S = 25.0
"""Seconds that a repetition waits for another process to answer."""
MAX_TAKEN = 10_000
"""Transactions of which a process remembers that they were answered."""
KEEP_MS = 24 * 3_600_000
"""For so long at least a repetition is recognised."""
PRUNE_EVERY_S = 900.0

_log = structlog.get_logger(__name__)


class Transactions:
    """Takes transactions. `told` is given what became of each: new, repeated, refused, failed."""

    def __init__(
        self,
        db: Database,
        inbound: Inbound,
        edus: EduHandlers,
        clock: IReactorTime,
        told: Callable[[str], object] = lambda outcome: None,
    ) -> None:
        self._db = db
        self._inbound = inbound
        self._edus = edus
        self._clock = clock
        self._told = told
        self._machine = Machine()
        self._answers: dict[tuple[str, str], list[Deferred[str]]] = {}
        self._turns: dict[str, Semaphore] = {}
        self._queued: Counter[str] = Counter()
        self._taken: dict[int, None] = {}
        """Hashes of what was answered, the oldest first."""
        self._loop = LoopingCall(self._prune)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to forget old transactions."""
        self._loop.start(PRUNE_EVERY_S, now=False)

    def stop(self) -> None:
        """Forget none any more."""
        if self._loop.running:
            self._loop.stop()

    async def receive(
        self, origin: str, txn_id: str, pdus: Sequence[Any], edus: Sequence[Any]
    ) -> str:
        """The answer to a transaction, as JSON.

        Raises:
            MatrixError: 429 M_LIMIT_EXCEEDED for too many at a time, 503 if another process is
                still at work on the same transaction.
            StorageError: something could not be stored; the transaction may be repeated.
        """
        key = (origin, txn_id)
        waiters = self._answers.get(key)
        if waiters is not None:
            # What one connection can repeat is bounded by what it can have under way.
            waiter: Deferred[str] = Deferred()
            waiters.append(waiter)
            self._told("repeated")
            return await waiter
        if self._queued[origin] >= MAX_QUEUED:
            self._told("refused")
            raise limit_exceeded(RETRY_AFTER_MS)
        waiters = self._answers[key] = []
        self._queued[origin] += 1
        try:
            answer = await self._in_turn(origin, txn_id, pdus, edus)
        except Exception as error:
            self._told("failed")
            del self._answers[key]
            for waiter in waiters:
                waiter.errback(error)
            raise
        finally:
            self._queued[origin] -= 1
            if not self._queued[origin]:
                del self._queued[origin]
                self._turns.pop(origin, None)
        del self._answers[key]
        for waiter in waiters:
            waiter.callback(answer)
        return answer

    async def _in_turn(
        self, origin: str, txn_id: str, pdus: Sequence[Any], edus: Sequence[Any]
    ) -> str:
        lock = self._turns.setdefault(origin, Semaphore(1))
        await lock.acquire()
        try:
            if not edus:
                return await self._take_events(origin, txn_id, pdus)
            known = await self._claim(origin, txn_id)
            if known is not None:
                self._told("repeated")
                return known
            try:
                answer = await self._work(origin, pdus, edus)
                await self._db.write(received.finish, origin, txn_id, answer)
            except Exception:
                await self._abandon(origin, txn_id)
                raise
            self._told("new")
            return answer
        finally:
            lock.release()

    async def _take_events(self, origin: str, txn_id: str, pdus: Sequence[Any]) -> str:
        """Work on a transaction of events alone, without a claim: events are added only once,
        however often they come and whichever process takes them."""
        taken = hash((origin, txn_id))
        kept = _Kept(self._db, origin, txn_id, self._clock, may_be_known=taken in self._taken)
        answers: Answers = {}
        if pdus:
            answers = await self._inbound.receive(origin, pdus, kept)
        else:
            await kept.look_up()
        answer = kept.answer
        if answer is None:
            answer = await self._db.write_single(kept.of(answers))
        self._told("repeated" if kept.was_answered else "new")
        self._taken[taken] = None
        if len(self._taken) > MAX_TAKEN:
            del self._taken[next(iter(self._taken))]
        return answer

    async def _claim(self, origin: str, txn_id: str) -> str | None:
        """The answer, if the transaction was answered before; None if it is for us to do."""
        pause = 0.1
        deadline = self._clock.seconds() + WAIT_FOR_S
        while True:
            now_ms = int(self._clock.seconds() * 1000)
            begun = await self._db.write(
                received.begin, origin, txn_id, self._db.process_token, now_ms, self._machine
            )
            if begun.mine or begun.answer is not None:
                return begun.answer
            if self._clock.seconds() + pause > deadline:
                raise unavailable()
            await _sleep(self._clock, pause)
            pause = min(2 * pause, 2.0)

    async def _work(self, origin: str, pdus: Sequence[Any], edus: Sequence[Any]) -> str:
        answers = await self._inbound.receive(origin, pdus) if pdus else {}
        if edus:
            await self._edus.receive(origin, edus)
        return _encoded(answers)

    async def _abandon(self, origin: str, txn_id: str) -> None:
        try:
            await self._db.write(received.abandon, origin, txn_id, self._db.process_token)
        except StorageError as error:
            # This process may begin it again; others, once this one has ended.
            _log.warning("A transaction is not given up", origin=origin, reason=str(error))

    def _prune(self) -> Deferred[object]:
        before = int(self._clock.seconds() * 1000) - KEEP_MS
        done: Deferred[object] = Deferred.fromCoroutine(
            self._db.write(received.forget_before, before)
        )
        return done.addErrback(
            lambda failure: _log.warning("Transactions not forgotten", reason=str(failure.value))
        )


class _Kept:
    """Keeps the answer to a transaction of events, best together with the events.

    `answer` is what it is answered with, once that is stored; `was_answered`, whether it was
    before.
    """

    def __init__(
        self,
        db: Database,
        origin: str,
        txn_id: str,
        clock: IReactorTime,
        *,
        may_be_known: bool,
    ) -> None:
        self.txn_id = txn_id
        self.may_be_known = may_be_known
        self.answer: str | None = None
        self.was_answered = False
        self._db = db
        self._origin = origin
        self._clock = clock
        self._stored: str | None = None
        self._tries = 0

    async def look_up(self) -> bool:
        """See `homeserver.rooms.inbound.Keeping`."""
        return self.answered(await self._db.query(received.answer_to, self._origin, self.txn_id))

    def answered(self, answer: str | None) -> bool:
        """See `homeserver.rooms.inbound.Keeping`."""
        self.answer = answer
        self.was_answered = answer is not None
        return self.was_answered

    def of(self, answers: Answers) -> received.Keep:
        """The statement that does it."""
        now_ms = int(self._clock.seconds() * 1000)
        return received.Keep(self._origin, self.txn_id, _encoded(answers), now_ms)

    def begin(self) -> None:
        """See `homeserver.rooms.inbound.Keeping`."""
        self._stored = None
        self._tries += 1

    def store(self, txn: Transaction, answers: Answers) -> None:
        """See `homeserver.rooms.inbound.Keeping`."""
        keep = self.of(answers)
        # Another process may have kept one since it was looked for: then there is a second try.
        self._stored = keep.as_first(txn) if self._tries == 1 else keep.in_steps(txn)

    def committed(self) -> None:
        """See `homeserver.rooms.inbound.Keeping`."""
        self.answer = self._stored


def _encoded(answers: Answers) -> str:
    return encode_json({"pdus": answers}).decode()


async def _sleep(clock: IReactorTime, seconds: float) -> None:
    waiter: Deferred[None] = Deferred()
    clock.callLater(seconds, waiter.callback, None)
    await waiter


@endpoint(
    "PUT",
    "/_matrix/federation/v1/send/{txn_id}",
    auth=Auth.FEDERATION,
    rate="federation",
    lenient_json=True,
    max_body=MAX_BODY,
)
async def put_transaction(
    origin: ServerName, txn_id: str, body: JsonObject, transactions: Transactions
) -> RawJson:
    """Events, and what else there is, of another server."""
    if len(txn_id.encode()) > MAX_TXN_ID_BYTES:
        raise invalid_param(f"A transaction ID has at most {MAX_TXN_ID_BYTES} bytes.")
    if body.get("origin") != origin:
        raise invalid_param("`origin` is not the server that signed the request.")
    pdus = _listed(body, "pdus", MAX_PDUS)
    edus = _listed(body, "edus", MAX_EDUS)
    answer = await transactions.receive(origin, txn_id, pdus, edus)
    return RawJson(answer.encode())


def _listed(body: JsonObject, key: str, limit: int) -> list[Any]:
    # Some servers write null for none.
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_json(f"`{key}` is not a list.")
    if len(value) > limit:
        raise MatrixError(400, "M_TOO_LARGE", f"A transaction has at most {limit} {key}.")
    return value


ENDPOINTS = [put_transaction]
