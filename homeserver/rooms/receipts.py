"""Read receipts and the fully read marker ("Receipts", "Read and unread markers").

- One receipt for each user, type and thread; one for an earlier event changes nothing.
- Private ones are told to nobody else.
- The marker is room account data of the user.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from homeserver.cache import Cache
from homeserver.core.errors import forbidden, invalid_param, not_found
from homeserver.core.ids import EventID, RoomID, UserID, domain_of
from homeserver.rooms.open_to import open_to
from homeserver.rooms.write import WrittenRoom
from storage import account_data, events, memberships, receipts, residence, rooms
from storage.database import Database
from storage.events import EventRow
from storage.receipts import MAIN, PRIVATE, PUBLIC, UNTHREADED, Receipt
from storage.transaction import Transaction

FULLY_READ = "m.fully_read"
TYPES = (PUBLIC, PRIVATE, FULLY_READ)
MAX_EARLY_EACH = 100
"""Receipts of remote users that are remembered for one event that is not known yet."""
MAX_HOPS = 3
"""Relations followed to find the thread of an event."""

_log = structlog.get_logger(__name__)


class Wanted(NamedTuple):
    """A receipt, or the marker, to be set."""

    type: str
    event_id: EventID
    thread_id: str = UNTHREADED
    allow_backward: bool = False
    """Whether the marker may move to an earlier event (MSC4446)."""


class RemoteReceipt(NamedTuple):
    """What another server says of its user: the newest of these events is read.

    `ts` in milliseconds; None if the server gives no time that could be true.
    """

    room_id: str
    user_id: str
    event_ids: tuple[str, ...]
    thread_id: str
    ts: int | None


class Receipts:
    """The receipts of users."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
        # Of remote users, by event ID, then user and thread.
        self._early: Cache[str, dict[tuple[str, str], RemoteReceipt]] = Cache(
            "early_receipts", lambda _, waiting: 400 + 900 * len(waiting), share=0.05
        )
        self.caches = (self._early,)

    async def set(self, user_id: UserID, room_id: RoomID, *wanted: Wanted) -> None:
        """Set receipts and the marker: all of them, or none.

        Raises MatrixError: 400 M_INVALID_PARAM for an unknown type or a thread that does not fit,
        403 M_FORBIDDEN for a room that the user is not in, 404 M_NOT_FOUND for an event that is
        not in the room.
        """
        for item in wanted:
            if item.type not in TYPES:
                raise invalid_param(f"The type of a receipt is one of {', '.join(TYPES)}.")
            if item.thread_id and item.type == FULLY_READ:
                raise invalid_param("m.fully_read has no thread_id.")
        now_ms = int(self._clock.seconds() * 1000)
        await self._db.write(_set, user_id, room_id, wanted, now_ms)

    async def set_remote(self, origin: str, told: Sequence[RemoteReceipt]) -> None:
        """Public receipts of another server's users.

        Passed over: users of any other server or not in the room, rooms that this server is not
        in or whose ACL denies the server, events and threads that are not in the room.
        """
        told = [receipt for receipt in told if domain_of(receipt.user_id) == origin]
        if not told:
            return
        now_ms = int(self._clock.seconds() * 1000)
        new, early = await self._db.read(_new_remote, origin, told, now_ms)
        if new:
            await self._db.write(_put_remote, new)
        for receipt in early:
            waiting = self._early.get(receipt.event_ids[-1], {})
            if len(waiting) < MAX_EARLY_EACH:
                waiting[receipt.user_id, receipt.thread_id] = receipt
                self._early[receipt.event_ids[-1]] = waiting

    def events_written(self, room: WrittenRoom) -> None:
        """Receipts that came before their events hold now."""
        if not self._early:
            return
        for entry in room.entries:
            waiting = self._early.pop(entry.event.event_id, {})
            for receipt in waiting.values():
                work = self.set_remote(domain_of(receipt.user_id), [receipt])
                Deferred.fromCoroutine(work).addErrback(
                    lambda failure: _log.warning("A receipt is lost", reason=str(failure.value))
                )


def _set(
    txn: Transaction, user_id: str, room_id: str, wanted: tuple[Wanted, ...], now_ms: int
) -> None:
    room_nid = rooms.nid(txn, room_id)
    member = None if room_nid is None else memberships.get(txn, room_nid, user_id)
    if room_nid is None or member is None or member.membership != "join":
        raise forbidden("You are not in this room.")
    new: list[Receipt] = []
    marker: tuple[str, int | None] | None = None
    for item in wanted:
        event = _event(txn, room_nid, item.event_id)
        if item.type == FULLY_READ:
            marker = _marker(txn, user_id, room_id, event, item.allow_backward)
            continue
        _check_thread(txn, event, item.thread_id)
        pos = event.pos or 0
        old = receipts.get(txn, room_nid, user_id, item.type, item.thread_id)
        if old is None or old.event_pos < pos:
            new.append(
                Receipt(
                    room_nid, user_id, item.type, item.thread_id, event.event_id, pos, now_ms, 0
                )
            )
    if not new and marker is None:
        return
    pos = txn.next_pos()
    if new:
        receipts.put(txn, [receipt._replace(pos=pos) for receipt in new])
    if marker is not None:
        content, old_pos = marker
        account_data.replace(txn, user_id, room_id, FULLY_READ, content, pos, old_pos)
    if any(receipt.type == PUBLIC for receipt in new):
        txn.notify(f"room:{room_nid}")
    txn.notify(f"user:{user_id}")


def _new_remote(
    txn: Transaction, origin: str, told: Sequence[RemoteReceipt], now_ms: int
) -> tuple[list[Receipt], list[RemoteReceipt]]:
    """Those that say something new, without a position; and those for events yet to come."""
    numbers = open_to(txn, origin, {receipt.room_id for receipt in told})
    told = [receipt for receipt in told if receipt.room_id in numbers]
    names = {name for receipt in told for name in receipt.event_ids}
    names |= {receipt.thread_id for receipt in told if receipt.thread_id not in (UNTHREADED, MAIN)}
    rows = events.get_many(txn, names)
    joined = {
        room_id: residence.joined(
            txn, room_nid, {receipt.user_id for receipt in told if receipt.room_id == room_id}
        )
        for room_id, room_nid in numbers.items()
    }
    new: dict[tuple[int, str, str], Receipt] = {}
    early = []
    for told_one in told:
        room_nid, user_id = numbers[told_one.room_id], told_one.user_id
        if user_id not in joined[told_one.room_id]:
            continue
        placed = [row for name in told_one.event_ids if (row := _placed(rows, name, room_nid))]
        thread_id = told_one.thread_id
        if told_one.event_ids and not any(name in rows for name in told_one.event_ids):
            early.append(told_one)
        if not placed or (
            thread_id not in (UNTHREADED, MAIN) and not _placed(rows, thread_id, room_nid)
        ):
            continue
        newest = max(placed, key=lambda row: row.pos or 0)
        ts, pos = min(told_one.ts or now_ms, now_ms), newest.pos or 0
        receipt = Receipt(room_nid, user_id, PUBLIC, thread_id, newest.event_id, pos, ts, 0)
        before = new.get((room_nid, user_id, thread_id)) or receipts.get(
            txn, room_nid, user_id, PUBLIC, thread_id
        )
        if before is None or before.event_pos < pos:
            new[room_nid, user_id, thread_id] = receipt
    return list(new.values()), early


def _placed(rows: dict[str, EventRow], event_id: str, room_nid: int) -> EventRow | None:
    """An event that clients see in the room."""
    row = rows.get(event_id)
    if row is None or row.room_nid != room_nid or row.pos is None or row.status != events.ACCEPTED:
        return None
    return row


def _put_remote(txn: Transaction, new: Sequence[Receipt]) -> None:
    pos = txn.next_pos()
    receipts.put(txn, [receipt._replace(pos=pos) for receipt in new])
    txn.notify(*{f"room:{receipt.room_nid}" for receipt in new})


def _event(txn: Transaction, room_nid: int, event_id: str) -> EventRow:
    row = events.get(txn, event_id)
    if row is None or row.room_nid != room_nid or row.pos is None or row.status != events.ACCEPTED:
        raise not_found("There is no such event in this room.")
    return row


def _marker(
    txn: Transaction, user_id: str, room_id: str, event: EventRow, allow_backward: bool
) -> tuple[str, int | None] | None:
    """The marker's new content and the position of the old one; None if it stays."""
    old = account_data.get_versioned(txn, user_id, room_id, FULLY_READ)
    if old is not None:
        name = old[0].get("event_id")
        if name == event.event_id:
            return None
        before = events.get(txn, name) if isinstance(name, str) else None
        is_later = before is not None and (before.pos or 0) >= (event.pos or 0)
        if is_later and not allow_backward:
            return None
    return json.dumps({"event_id": event.event_id}), None if old is None else old[1]


def _check_thread(txn: Transaction, event: EventRow, thread_id: str) -> None:
    """Refuse a thread that the event is not in.

    The root belongs to the main timeline, and so does what relates to it otherwise; receipts for
    them are taken for the thread as well.
    """
    if thread_id == UNTHREADED:
        return
    if thread_id == MAIN:
        fits = event.thread_root is None
    elif event.thread_root is not None:
        fits = event.thread_root == thread_id
    else:
        fits = _leads_to(txn, event, thread_id) and events.is_thread_root(txn, thread_id)
    if not fits:
        raise invalid_param("The event is not in the thread that thread_id names.")


def _leads_to(txn: Transaction, event: EventRow, event_id: str) -> bool:
    row: EventRow | None = event
    for _ in range(MAX_HOPS + 1):
        if row is None or row.room_nid != event.room_nid:
            return False
        if row.event_id == event_id:
            return True
        row = events.get(txn, row.relates_to) if row.relates_to is not None else None
    return False
