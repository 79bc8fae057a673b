"""What other servers send: their transactions, and their events that wait to be added to rooms.

Tables `received_transactions`, `staged_pdus`. Times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from storage import processes
from storage.machine import Machine
from storage.point_query import point_query
from storage.transaction import Effects, Row, Transaction

STAGED = "staged_pdus"
"""Channel on which staged events are hinted at."""


class Begun(NamedTuple):
    """What is to be done with a transaction.

    It is for the caller to do if `mine`; otherwise `answer` is what it was answered with before,
    or None if another process is at it.
    """

    mine: bool
    answer: str | None = None


def begin(
    txn: Transaction,
    origin: str,
    txn_id: str,
    owner: str,
    now_ms: int,
    machine: Machine | None = None,
) -> Begun:
    """Claim a transaction for a process, which has not begun it already.

    What a process left that is gone is taken over; `machine` tells that at once of those on it.
    """
    added = txn.execute(
        "INSERT INTO received_transactions (origin, txn_id, owner, answer, received_ts)"
        " VALUES (?, ?, ?, NULL, ?) ON CONFLICT (origin, txn_id) DO NOTHING",
        (origin, txn_id, owner, now_ms),
    )
    if added:
        return Begun(mine=True)
    row = txn.one(
        "SELECT owner, answer FROM received_transactions WHERE origin = ? AND txn_id = ?"
        f"{txn.dialect.for_update}",
        (origin, txn_id),
    )
    if row is None:
        return Begun(mine=False)
    before, answer = row
    if answer is not None:
        return Begun(mine=False, answer=answer)
    alive = {
        process.process_id
        for process in processes.running(txn)
        if machine is None or not processes.is_gone(process, machine)
    }
    if before != owner and before in alive:
        return Begun(mine=False)
    txn.execute(
        "UPDATE received_transactions SET owner = ? WHERE origin = ? AND txn_id = ?",
        (owner, origin, txn_id),
    )
    return Begun(mine=True)


def finish(txn: Transaction, origin: str, txn_id: str, answer: str) -> None:
    """Keep the answer to a transaction."""
    txn.execute(
        "UPDATE received_transactions SET answer = ? WHERE origin = ? AND txn_id = ?",
        (answer, origin, txn_id),
    )


def _answer(rows: list[Row]) -> str | None:
    return rows[0][0] if rows else None


@point_query("SELECT answer FROM received_transactions WHERE origin = ? AND txn_id = ?", _answer)
def answer_to(origin: str, txn_id: str) -> Sequence[Any]:
    """What a transaction was answered with before."""
    return (origin, txn_id)


class Keep(NamedTuple):
    """Keeping the answer to a transaction that nobody claimed; the first one stays.

    For `Database.write_single`, of which the answer that is kept is the result.
    """

    origin: str
    txn_id: str
    answer: str
    now_ms: int

    @property
    def postgres(self) -> str:
        """See `storage.single.Single`."""
        return f"{_KEEP} RETURNING answer"

    def arguments(self) -> Sequence[str]:
        """See `storage.single.Single`."""
        return (self.origin, self.txn_id, self.answer, str(self.now_ms))

    def result(self, effects: Effects, row: Row) -> str:
        """See `storage.single.Single`."""
        return str(row[0])

    def in_steps(self, txn: Transaction) -> str:
        """See `storage.single.Single`."""
        args = (self.origin, self.txn_id, self.answer, self.now_ms)
        return str(txn.value(f"{_KEEP} RETURNING answer", args))

    def as_first(self, txn: Transaction) -> str:
        """The same where no answer is expected to be kept yet; the answer.

        If there is one, the database transaction fails with IntegrityViolation, perhaps at its
        end.
        """
        args = (self.origin, self.txn_id, self.answer, self.now_ms)
        txn.later(_FIRST, args)
        return self.answer


_FIRST = (
    "INSERT INTO received_transactions (origin, txn_id, owner, answer, received_ts)"
    " VALUES (?, ?, '', ?, CAST(? AS BIGINT))"
)
_KEEP = (
    f"{_FIRST} ON CONFLICT (origin, txn_id) DO UPDATE"
    " SET answer = COALESCE(received_transactions.answer, excluded.answer)"
)


def abandon(txn: Transaction, origin: str, txn_id: str, owner: str) -> None:
    """A transaction could not be worked on: the next try begins anew."""
    txn.execute(
        "DELETE FROM received_transactions WHERE origin = ? AND txn_id = ? AND owner = ?"
        " AND answer IS NULL",
        (origin, txn_id, owner),
    )


def forget_before(txn: Transaction, before_ms: int) -> int:
    """Delete transactions that are older; how many there were."""
    return txn.execute("DELETE FROM received_transactions WHERE received_ts < ?", (before_ms,))


class Staged(NamedTuple):
    """An event that waits."""

    event_id: str
    origin: str
    depth: int
    json: str
    received_ts: int
    attempts: int


class NewPdu(NamedTuple):
    """An event to be staged."""

    event_id: str
    depth: int
    json: str


class Bound(NamedTuple):
    """How much may wait."""

    events: int
    size: int
    """In bytes."""


class Bounds(NamedTuple):
    """How much may wait of one server in one room, for one room, and of one server."""

    queue: Bound = Bound(2_000, 32 * 1024 * 1024)
    room: Bound = Bound(8_000, 128 * 1024 * 1024)
    origin: Bound = Bound(10_000, 128 * 1024 * 1024)


def stage(
    txn: Transaction,
    room_nid: int,
    origin: str,
    pdus: Sequence[NewPdu],
    bounds: Bounds,
    now_ms: int,
) -> set[str]:
    """Keep events of a room until they can be added; the IDs of those that are kept.

    Those for which there is no room are left out, but for those that wait already.
    """
    where, args = txn.any_of("event_id", [pdu.event_id for pdu in pdus])
    rows = txn.all(
        f"SELECT event_id FROM staged_pdus WHERE room_nid = ? AND {where}", [room_nid, *args]
    )
    kept = {row[0] for row in rows}
    events, size = _room_for_more(txn, room_nid, origin, bounds)
    new = []
    for pdu in pdus:
        if pdu.event_id in kept:
            continue
        length = len(pdu.json.encode())
        if events < 1 or length > size:
            continue
        events, size = events - 1, size - length
        kept.add(pdu.event_id)
        new.append((room_nid, pdu.event_id, origin, pdu.depth, pdu.json, length, now_ms, 0, now_ms))
    if new:
        txn.many(
            "INSERT INTO staged_pdus (room_nid, event_id, origin, depth, json, size, received_ts,"
            " attempts, next_try_ts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            new,
        )
    txn.notify(STAGED)
    return kept


def _room_for_more(txn: Transaction, room_nid: int, origin: str, bounds: Bounds) -> tuple[int, int]:
    """How many events and bytes more may wait."""
    counts = {}
    for server, *numbers in txn.all(
        "SELECT origin, COUNT(*), SUM(size) FROM staged_pdus WHERE room_nid = ? GROUP BY origin",
        (room_nid,),
    ):
        counts[server] = (int(numbers[0]), int(numbers[1]))
    queue = counts.get(origin, (0, 0))
    room = (sum(each[0] for each in counts.values()), sum(each[1] for each in counts.values()))
    raw = txn.one("SELECT COUNT(*), SUM(size) FROM staged_pdus WHERE origin = ?", (origin,))
    of_origin = (0, 0) if raw is None else (int(raw[0]), int(raw[1] or 0))
    pairs = ((bounds.queue, queue), (bounds.room, room), (bounds.origin, of_origin))
    return (
        min(bound.events - events for bound, (events, _) in pairs),
        min(bound.size - size for bound, (_, size) in pairs),
    )


def with_backlog(txn: Transaction, origin: str, room_nids: Collection[int]) -> set[int]:
    """Those of the rooms with events of a server that were not tried yet."""
    if not room_nids:
        return set()
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT DISTINCT room_nid FROM staged_pdus WHERE {where} AND origin = ? AND attempts = 0",
        [*args, origin],
    )
    return {row[0] for row in rows}


class Queue(NamedTuple):
    """The events of one server that wait for one room."""

    room_nid: int
    room_id: str
    version: str
    origin: str


def due_queues(txn: Transaction, now_ms: int, limit: int) -> list[Queue]:
    """Queues with events to be tried now, the longest due first."""
    rows = txn.all(
        "SELECT q.room_nid, r.room_id, r.version, q.origin FROM"
        " (SELECT room_nid, origin, MIN(next_try_ts) AS since FROM staged_pdus"
        " WHERE next_try_ts <= ? GROUP BY room_nid, origin) q"
        " JOIN rooms r ON r.room_nid = q.room_nid ORDER BY q.since, q.room_nid, q.origin LIMIT ?",
        (now_ms, limit),
    )
    return [Queue(*row) for row in rows]


def due(txn: Transaction, queue: Queue, now_ms: int, limit: int) -> list[Staged]:
    """Events of a queue that are to be tried now, the longest waiting first."""
    rows = txn.all(
        "SELECT event_id, origin, depth, json, received_ts, attempts FROM staged_pdus"
        " WHERE room_nid = ? AND origin = ? AND next_try_ts <= ?"
        " ORDER BY received_ts, depth, event_id LIMIT ?",
        (queue.room_nid, queue.origin, now_ms, limit),
    )
    return [Staged(*row) for row in rows]


def postpone(txn: Transaction, room_nid: int, until: Iterable[tuple[str, int]]) -> None:
    """Tries failed: event IDs, and when they are tried again."""
    for event_id, next_try_ms in until:
        txn.execute(
            "UPDATE staged_pdus SET attempts = attempts + 1, next_try_ts = ?"
            " WHERE room_nid = ? AND event_id = ?",
            (next_try_ms, room_nid, event_id),
        )


def remove(txn: Transaction, room_nid: int, event_ids: Collection[str]) -> None:
    """These events wait no more."""
    if event_ids:
        where, args = txn.any_of("event_id", event_ids)
        txn.execute(f"DELETE FROM staged_pdus WHERE room_nid = ? AND {where}", [room_nid, *args])


def remove_room(txn: Transaction, room_nid: int) -> int:
    """Nothing of this room waits any more; how much did."""
    return txn.execute("DELETE FROM staged_pdus WHERE room_nid = ?", (room_nid,))


class Size(NamedTuple):
    """How many events wait, and since when (ms) the oldest does."""

    events: int
    since: int | None


def size(txn: Transaction) -> Size:
    """What waits, of all servers for all rooms."""
    row = txn.one("SELECT COUNT(*), MIN(received_ts) FROM staged_pdus")
    return Size(0, None) if row is None else Size(int(row[0]), row[1])


def waiting(txn: Transaction, room_nid: int) -> dict[str, int]:
    """Events of a room that wait, and how often each was tried."""
    rows = txn.all("SELECT event_id, attempts FROM staged_pdus WHERE room_nid = ?", (room_nid,))
    return {row[0]: row[1] for row in rows}
