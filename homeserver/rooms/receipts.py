"""Read receipts and the fully read marker ("Receipts", "Read and unread markers").

- One receipt for each user, type and thread; one for an earlier event changes nothing.
- Private ones are told to nobody else.
- The marker is room account data of the user.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import forbidden, invalid_param, not_found
from homeserver.core.ids import EventID, RoomID, UserID
from storage import account_data, events, memberships, receipts, rooms
from storage.database import Database
from storage.events import EventRow
from storage.receipts import MAIN, PRIVATE, PUBLIC, UNTHREADED, Receipt
from storage.transaction import Transaction

FULLY_READ = "m.fully_read"
TYPES = (PUBLIC, PRIVATE, FULLY_READ)
MAX_HOPS = 3
"""Relations followed to find the thread of an event."""


class Wanted(NamedTuple):
    """A receipt, or the marker, to be set."""

    type: str
    event_id: EventID
    thread_id: str = UNTHREADED


class Receipts:
    """The receipts of this server's users."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

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
            marker = _marker(txn, user_id, room_id, event)
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


def _event(txn: Transaction, room_nid: int, event_id: str) -> EventRow:
    row = events.get(txn, event_id)
    if row is None or row.room_nid != room_nid or row.pos is None or row.status != events.ACCEPTED:
        raise not_found("There is no such event in this room.")
    return row


def _marker(
    txn: Transaction, user_id: str, room_id: str, event: EventRow
) -> tuple[str, int | None] | None:
    """The marker's new content and the position of the old one; None if it stays."""
    old = account_data.get_versioned(txn, user_id, room_id, FULLY_READ)
    if old is not None:
        name = old[0].get("event_id")
        before = events.get(txn, name) if isinstance(name, str) else None
        if before is not None and (before.pos or 0) >= (event.pos or 0):
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
