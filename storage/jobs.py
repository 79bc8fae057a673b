"""Queued work, enqueued in the transaction that needs it. Table `jobs`.

A job is run at least once: a process that dies in the middle leaves it to the next, so handlers
must bear being run again. A job that fails is tried again later and later, and kept with its
error when it has failed too often. Times are milliseconds.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from homeserver.ticking import start_ticking
from storage.bus import Unsubscribe
from storage.database import Database
from storage.feed import Feed
from storage.transaction import Transaction

CHANNEL = "jobs"
CLAIM_MS = 60_000
POLL_SECONDS = 5.0
MAX_ATTEMPTS = 12
_FIRST_DELAY_MS = 5_000
_LONGEST_DELAY_MS = 3_600_000
_ERROR_LENGTH = 2_000

_log = structlog.get_logger(__name__)


class NotYet(Exception):
    """Raised by handlers: what stands in the way is not ours, such as a server that is away."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job. `attempts` counts this attempt; `payload` is JSON as given to `enqueue`."""

    job_id: str
    kind: str
    payload: Any
    attempts: int


@dataclass(frozen=True, slots=True)
class FailedJob:
    job_id: str
    kind: str
    payload: Any
    attempts: int
    error: str
    failed_ts: int


def enqueue(
    txn: Transaction,
    kind: str,
    payload: Any,
    now: int,
    *,
    run_at: int | None = None,
    dedup_key: str | None = None,
) -> str | None:
    """Add a job, to be run at once or at `run_at`; its ID.

    While a job of the same kind and `dedup_key` waits or runs, nothing is added and None is
    returned.
    """
    job_id = secrets.token_hex(12)
    due = now if run_at is None else run_at
    added = txn.execute(
        "INSERT INTO jobs (job_id, kind, payload, dedup_key, run_at, attempts, claimed_until,"
        " created_ts) VALUES (?, ?, ?, ?, ?, 0, 0, ?)"
        " ON CONFLICT (kind, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING",
        (job_id, kind, json.dumps(payload), dedup_key, due, now),
    )
    if not added:
        return None
    if due <= now:
        txn.notify(CHANNEL)
    return job_id


def claim(
    txn: Transaction, kinds: Collection[str], owner: str, now: int, duration: int, limit: int
) -> list[Job]:
    """Claim at most `limit` due jobs that nobody works on, the longest due first."""
    condition, args = txn.any_of("kind", kinds)
    rows = txn.all(
        # Materialised, or PostgreSQL might run the sub-select more than once and claim more.
        "WITH due AS MATERIALIZED (SELECT job_id FROM jobs"
        f" WHERE failed_ts IS NULL AND run_at <= ? AND claimed_until <= ? AND {condition}"
        f" ORDER BY run_at, created_ts LIMIT ?{txn.dialect.skip_locked})"
        " UPDATE jobs SET owner = ?, claimed_until = ?, attempts = attempts + 1"
        " WHERE job_id IN (SELECT job_id FROM due)"
        " RETURNING job_id, kind, payload, attempts, run_at, created_ts",
        (now, now, *args, limit, owner, now + duration),
    )
    rows.sort(key=lambda row: (row[4], row[5]))
    return [Job(job_id, kind, json.loads(text), n) for job_id, kind, text, n, _, _ in rows]


def renew(txn: Transaction, job_ids: Collection[str], owner: str, now: int, duration: int) -> None:
    """Keep claimed jobs from being claimed by others."""
    condition, args = txn.any_of("job_id", job_ids)
    txn.execute(
        f"UPDATE jobs SET claimed_until = ? WHERE {condition} AND owner = ?",
        (now + duration, *args, owner),
    )


def complete(txn: Transaction, job_id: str, owner: str) -> bool:
    """Remove a job that is done; False when `owner` does not hold it any more.

    A handler may call this itself, in the transaction that does its work: exactly once then.
    """
    sql = "DELETE FROM jobs WHERE job_id = ? AND owner = ?"
    return txn.execute(sql, (job_id, owner)) > 0


def fail(
    txn: Transaction, job: Job, owner: str, now: int, error: str, max_attempts: int = MAX_ATTEMPTS
) -> int | None:
    """Record a failed attempt; when it is tried again, or None if that was the last."""
    told = error.replace("\x00", "").encode("utf-8", "replace").decode()[-_ERROR_LENGTH:]
    if job.attempts >= max_attempts:
        txn.execute(
            "UPDATE jobs SET failed_ts = ?, last_error = ?, owner = NULL, claimed_until = 0,"
            " dedup_key = NULL WHERE job_id = ? AND owner = ?",
            (now, told, job.job_id, owner),
        )
        return None
    run_at = now + retry_delay(job.attempts)
    txn.execute(
        "UPDATE jobs SET run_at = ?, last_error = ?, owner = NULL, claimed_until = 0"
        " WHERE job_id = ? AND owner = ?",
        (run_at, told, job.job_id, owner),
    )
    return run_at


def give_back(txn: Transaction, job_ids: Collection[str], owner: str) -> None:
    """Return claimed jobs as if they had not been tried."""
    condition, args = txn.any_of("job_id", job_ids)
    txn.execute(
        "UPDATE jobs SET owner = NULL, claimed_until = 0, attempts = attempts - 1"
        f" WHERE {condition} AND owner = ?",
        (*args, owner),
    )


def release_all(txn: Transaction, owner: str) -> None:
    """A process is gone: what it had claimed is due again. Its attempts count."""
    txn.execute("UPDATE jobs SET owner = NULL, claimed_until = 0 WHERE owner = ?", (owner,))


def retry_delay(attempts: int) -> int:
    """Milliseconds until a job that failed `attempts` times is tried again."""
    return int(min(_LONGEST_DELAY_MS, _FIRST_DELAY_MS * 2 ** min(attempts - 1, 30)))


def failed(txn: Transaction, limit: int = 100) -> list[FailedJob]:
    """The jobs that failed for good, the newest first."""
    return [
        FailedJob(job_id, kind, json.loads(text), attempts, error, ts)
        for job_id, kind, text, attempts, error, ts in txn.all(
            "SELECT job_id, kind, payload, attempts, last_error, failed_ts FROM jobs"
            " WHERE failed_ts IS NOT NULL ORDER BY failed_ts DESC LIMIT ?",
            (limit,),
        )
    ]


class ListedJob(NamedTuple):
    """A job in a list. `status` is scheduled, active or failed; since, or until, `ts`."""

    job_id: str
    kind: str
    payload: Any
    status: str
    ts: int
    error: str | None


def listed(
    txn: Transaction, kind: str | None, before: int | None, now: int, limit: int
) -> list[ListedJob]:
    """Jobs that are not done: of a kind, those made before a time; the newest first."""
    conditions, args = ["1 = 1"], list[object]()
    if kind is not None:
        conditions.append("kind = ?")
        args.append(kind)
    if before is not None:
        conditions.append("created_ts < ?")
        args.append(before)
    rows = txn.all(
        "SELECT job_id, kind, payload, run_at, claimed_until, created_ts, failed_ts, last_error"
        f" FROM jobs WHERE {' AND '.join(conditions)} ORDER BY created_ts DESC, job_id LIMIT ?",
        [*args, limit],
    )
    found = []
    for job_id, name, payload, run_at, claimed_until, created_ts, failed_ts, error in rows:
        if failed_ts is not None:
            status, ts = "failed", failed_ts
        elif claimed_until > now:
            status, ts = "active", created_ts
        else:
            status, ts = "scheduled", run_at
        found.append(ListedJob(job_id, name, json.loads(payload), status, ts, error))
    return found


def waiting(txn: Transaction, kind: str) -> int:
    """How many jobs of a kind are not done."""
    sql = "SELECT count(*) FROM jobs WHERE kind = ? AND failed_ts IS NULL"
    return int(txn.value(sql, (kind,)))


Handler = Callable[[Job], Awaitable[object]]


class JobRunner:
    """Runs due jobs, at most `concurrency` at a time.

    Parameters: `owner`, unique to the process; `handlers` by kind. Jobs of other kinds are left
    to processes that know them.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        clock: IReactorTime,
        owner: str,
        handlers: Mapping[str, Handler],
        *,
        concurrency: int = 4,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._db = db
        self._feed = feed
        self._clock = clock
        self._owner = owner
        self._handlers = handlers
        self._concurrency = concurrency
        self._max_attempts = max_attempts
        self._running: dict[str, Deferred[None]] = {}
        self._claiming: Deferred[None] | None = None
        self._again = False
        self._stopped = True
        self._unsubscribe: Unsubscribe | None = None
        self._poll = LoopingCall(self.wake)
        self._renewal = LoopingCall(self._renew_safely)
        self._poll.clock = self._renewal.clock = clock

    def start(self) -> None:
        """Begin: now, at each hint, and every few seconds."""
        self._stopped = False
        self._unsubscribe = self._feed.subscribe(CHANNEL, lambda pos: self.wake())
        start_ticking(self._poll, POLL_SECONDS, now=True)
        self._renewal.start(CLAIM_MS / 3000, now=False)

    async def stop(self) -> None:
        """Take no more jobs, interrupt those that run, and return them."""
        self._stopped = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        for loop in (self._poll, self._renewal):
            if loop.running:
                loop.stop()
        if self._claiming is not None:
            claimed: Deferred[None] = Deferred()
            self._claiming.addBoth(claimed.callback)
            await claimed
        interrupted = dict(self._running)
        for running in interrupted.values():
            running.cancel()
        if interrupted:
            await self._db.write(give_back, list(interrupted), self._owner)

    def wake(self) -> None:
        """Look for due jobs."""
        if self._stopped:
            return
        self._again = True
        if self._claiming is None:
            self._claiming = ensureDeferred(self._claim_all())
            self._claiming.addBoth(self._claimed)

    def _claimed(self, result: object) -> None:
        self._claiming = None
        if isinstance(result, Failure):
            _log.error("Claiming jobs failed", reason=str(result.value))
            return  # the next poll tries again
        if self._again:
            self.wake()

    async def _claim_all(self) -> None:
        # What is enqueued while this runs sets `_again`.
        self._again = False
        free = self._concurrency - len(self._running)
        if free <= 0:
            return  # the end of a job wakes this up
        try:
            jobs = await self._db.write(
                claim, list(self._handlers), self._owner, self._now(), CLAIM_MS, free
            )
        except Exception as error:
            _log.warning("Jobs could not be claimed", reason=str(error))
            self._again = False  # the next poll will
            return
        for job in jobs:
            self._start(job)

    def _start(self, job: Job) -> None:
        # In the table before it can end.
        running: Deferred[None] = Deferred()
        self._running[job.job_id] = running
        work = ensureDeferred(self._run(job))
        if job.job_id in self._running:
            self._running[job.job_id] = work

    async def _run(self, job: Job) -> None:
        try:
            try:
                await self._handlers[job.kind](job)
            except Exception as error:
                if self._stopped:
                    return  # interrupted: `stop` gives it back
                if isinstance(error, NotYet):
                    _log.info("A job waits", kind=job.kind, job=job.job_id, reason=str(error))
                else:
                    _log.warning("A job failed", kind=job.kind, job=job.job_id, exc_info=True)
                told = f"{type(error).__name__}: {error}"
                await self._db.write(fail, job, self._owner, self._now(), told, self._max_attempts)
            else:
                await self._db.write(complete, job.job_id, self._owner)
        except Exception as error:
            # The claim runs out, and the job is run again.
            _log.warning("The end of a job was not recorded", job=job.job_id, reason=str(error))
        finally:
            self._running.pop(job.job_id, None)
            self.wake()

    def _renew_safely(self) -> Deferred[None]:
        return ensureDeferred(self._renew())

    async def _renew(self) -> None:
        if not self._running:
            return
        try:
            await self._db.write(renew, list(self._running), self._owner, self._now(), CLAIM_MS)
        except Exception as error:
            _log.warning("Claims of jobs could not be renewed", reason=str(error))

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
