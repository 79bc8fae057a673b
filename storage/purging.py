"""Taking old events out of a room, and what hangs on them.

Owners of the tables are their own modules; this one reaches into all that refer to a room's
events, because they have to change together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from storage import events, message_words, rooms
from storage.events import ACCEPTED
from storage.room_removal import BY_EVENT
from storage.timeline import Place
from storage.transaction import Transaction


class Victim(NamedTuple):
    """An event that loses its place in a room's history."""

    event_nid: int
    event_id: str
    pos: int | None
    depth: int
    state_key: str | None
    sender: str
    redacted_by: str | None
    thread_root: str | None
    notify: int


_COLUMNS = ", ".join(Victim._fields)


def placed(
    txn: Transaction, room_nid: int, behind: Place | None, depth: int, limit: int
) -> list[Victim]:
    """Events of less than a depth that have a place, in the order of the graph.

    Parameters: `behind`, only those that come after this place.
    """
    above, args = ("", ()) if behind is None else (" AND (depth, pos) > (?, ?)", behind)
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM events WHERE room_nid = ? AND pos IS NOT NULL{above}"
        " AND depth < ? ORDER BY depth, pos LIMIT ?",
        (room_nid, *args, depth, limit),
    )
    return [Victim(*raw) for raw in rows]


def placeless(
    txn: Transaction, room_nid: int, behind: int, depth: int, keep: str | None, limit: int
) -> list[Victim]:
    """Events of less than a depth that are in no timeline: messages that were refused or taken
    out, and whatever has states around it. In the order of their numbers.

    Parameters: `behind`, only those of higher numbers; `keep`, messages of this server's users
    stay.
    """
    messages, args = "state_key IS NULL", []
    if keep is not None:
        messages, args = "state_key IS NULL AND sender NOT LIKE ?", [f"%:{keep}"]
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM events WHERE room_nid = ? AND pos IS NULL AND depth < ?"
        f" AND event_nid > ? AND (state_before IS NOT NULL OR ({messages}))"
        " ORDER BY event_nid LIMIT ?",
        [room_nid, depth, behind, *args, limit],
    )
    return [Victim(*raw) for raw in rows]


def erase(
    txn: Transaction, room_nid: int, doomed: Sequence[Victim], displaced: Sequence[Victim]
) -> None:
    """Delete events, and take others out of the history, which stay for what they authorise."""
    everything = [*doomed, *displaced]
    if not everything:
        return
    rooms.contents_changed(txn, [room_nid])
    _forget_what_hangs_on(txn, room_nid, everything)
    _forget_redactions(txn, doomed)
    if doomed:
        where, args = txn.any_of("event_nid", [each.event_nid for each in doomed])
        txn.execute(f"DELETE FROM events WHERE {where}", args)
    if displaced:
        where, args = txn.any_of("event_nid", [each.event_nid for each in displaced])
        txn.execute(
            "UPDATE events SET pos = NULL, state_before = NULL, state_after = NULL,"
            " relates_to = NULL, rel_type = NULL, thread_root = NULL, notify = 0,"
            f" notify_total = 0, highlight_total = 0, outgoing = ? WHERE {where}",
            [False, *args],
        )
    _uncount(txn, room_nid, everything)


def _forget_what_hangs_on(txn: Transaction, room_nid: int, gone: Sequence[Victim]) -> None:
    numbers = [each.event_nid for each in gone]
    message_words.remove_many(txn, numbers)
    where, args = txn.any_of("event_nid", numbers)
    for table in BY_EVENT:
        txn.execute(f"DELETE FROM {table} WHERE {where}", args)
    where, args = txn.any_of("successor", [each.event_id for each in gone])
    txn.execute(f"DELETE FROM event_gaps WHERE room_nid = ? AND {where}", [room_nid, *args])
    positions = [each.pos for each in gone if each.pos is not None]
    if positions:
        where, args = txn.any_of("pos", positions)
        for table in ("notify_marks", "timeline_breaks"):
            txn.execute(f"DELETE FROM {table} WHERE room_nid = ? AND {where}", [room_nid, *args])
        txn.execute(f"DELETE FROM destination_events WHERE {where}", args)


def _forget_redactions(txn: Transaction, doomed: Sequence[Victim]) -> None:
    """What is redacted stays so if it comes back: the redaction waits for it again."""
    for each in doomed:
        if each.redacted_by is not None:
            events.hold_redaction(txn, each.event_id, each.redacted_by)
    if doomed:
        where, args = txn.any_of("redaction_id", [each.event_id for each in doomed])
        txn.execute(f"DELETE FROM pending_redactions WHERE {where}", args)


def _uncount(txn: Transaction, room_nid: int, gone: Sequence[Victim]) -> None:
    """Keep the running counts right where events stay that came before ones that are gone.

    A user's count is the room's total without the total where they stopped reading.
    """
    counted = [
        each
        for each in gone
        if each.notify > 0 and each.thread_root is None and each.pos is not None and each.pos > 0
    ]
    last = max((each.pos or 0 for each in counted), default=0)
    if not counted or not txn.one(
        "SELECT 1 FROM events WHERE room_nid = ? AND pos > 0 AND pos < ? LIMIT 1", (room_nid, last)
    ):
        return
    for each in counted:
        txn.execute(
            "UPDATE events SET notify_total = notify_total + 1,"
            " highlight_total = highlight_total + ? WHERE room_nid = ? AND pos > 0 AND pos < ?",
            (int(each.notify > 1), room_nid, each.pos),
        )


def first_positive(txn: Transaction, room_nid: int) -> int | None:
    """The first position of the room's log that is still there."""
    found: int | None = txn.value(
        "SELECT MIN(pos) FROM events WHERE room_nid = ? AND pos > 0", (room_nid,)
    )
    return found


def old_states(txn: Transaction, room_nid: int, before: int) -> list[int]:
    """Positions, before one, from which on the room had another state; in order."""
    rows = txn.all(
        "SELECT pos FROM room_states WHERE room_nid = ? AND pos < ? ORDER BY pos",
        (room_nid, before),
    )
    return [row[0] for row in rows]


def delete_states(txn: Transaction, room_nid: int, positions: Collection[int]) -> None:
    """Forget the states that began at these positions."""
    where, args = txn.any_of("pos", positions)
    txn.execute(f"DELETE FROM room_states WHERE room_nid = ? AND {where}", [room_nid, *args])


def former_members(txn: Transaction, room_nid: int) -> list[str]:
    """Users of this server who are not in the room, and may look at what they saw of it."""
    rows = txn.all(
        "SELECT user_id FROM memberships WHERE room_nid = ? AND is_local AND membership <> 'join'"
        " AND NOT forgotten",
        (room_nid,),
    )
    return [row[0] for row in rows]


class Named(NamedTuple):
    """An event in its place, whose JSON names its predecessors."""

    event_id: str
    depth: int
    pos: int
    json: str


def remaining(txn: Transaction, room_nid: int, behind: Place | None, limit: int) -> list[Named]:
    """Events of a room's history behind a place, in order."""
    above, args = ("", ()) if behind is None else (" AND (depth, pos) > (?, ?)", behind)
    rows = txn.all(
        f"SELECT event_id, depth, pos, json FROM events WHERE room_nid = ? AND pos IS NOT NULL"
        f"{above} AND status = {ACCEPTED} ORDER BY depth, pos LIMIT ?",
        (room_nid, *args, limit),
    )
    return [Named(*raw) for raw in rows]


_PLACED = "(SELECT 1 FROM events e WHERE e.event_id = {} AND e.pos IS NOT NULL)"


def delete_receipts(txn: Transaction, room_nid: int, limit: int) -> int:
    """Forget up to so many receipts that point at nothing, or are for threads that are gone."""
    at_event, in_thread = _PLACED.format("r.event_id"), _PLACED.format("r.thread_id")
    return txn.execute(
        "DELETE FROM receipts WHERE room_nid = ? AND (user_id, type, thread_id) IN"
        " (SELECT r.user_id, r.type, r.thread_id FROM receipts r WHERE r.room_nid = ?"
        f" AND (NOT EXISTS {at_event} OR (r.thread_id NOT IN ('', 'main')"
        f" AND NOT EXISTS {in_thread})) LIMIT ?)",
        (room_nid, room_nid, limit),
    )


def delete_subscriptions(txn: Transaction, room_id: str) -> int:
    """Forget subscriptions of threads that are gone."""
    placed_root = _PLACED.format("thread_subscriptions.thread_id")
    return txn.execute(
        f"DELETE FROM thread_subscriptions WHERE room_id = ? AND NOT EXISTS {placed_root}",
        (room_id,),
    )


def delete_pushes(txn: Transaction, room_nid: int) -> None:
    """Forget what was or is to be pushed of events that are gone."""
    txn.execute(
        "DELETE FROM push_queue WHERE room_nid = ? AND NOT EXISTS"
        " (SELECT 1 FROM events e WHERE e.event_nid = push_queue.event_nid)",
        (room_nid,),
    )
    txn.execute(
        "DELETE FROM push_log WHERE room_nid = ? AND event_id IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM events e WHERE e.event_id = push_log.event_id)",
        (room_nid,),
    )


def count_before(txn: Transaction, room_nid: int, ts: int) -> int:
    """How many events of a room's history are older than a time in milliseconds."""
    found: int = txn.value(
        "SELECT COUNT(*) FROM events WHERE room_nid = ? AND origin_server_ts < ?"
        " AND pos IS NOT NULL",
        (room_nid, ts),
    )
    return found


def depth_of_nth(txn: Transaction, room_nid: int, n: int) -> int | None:
    """The depth of the n-th event (from 0 on) of a room's history; None if there are fewer."""
    found: int | None = txn.value(
        "SELECT depth FROM events WHERE room_nid = ? AND pos IS NOT NULL"
        " ORDER BY depth, pos LIMIT 1 OFFSET ?",
        (room_nid, n),
    )
    return found
