"""A room that events of other servers are added to: its row, and what is noted of it and waits for
them. Asked for each batch of events.

Reads `rooms`, `partial_rooms`, `event_gaps`, `pending_redactions` and `staged_pdus` by one
statement: mostly there is next to nothing in the last four.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.rooms import COLUMNS, RoomRow, from_row
from storage.transaction import Transaction

FEW = 50
"""More gaps, or redactions that wait, are looked up by the events that they are about."""


class RoomNotes(NamedTuple):
    """What was noted before a batch of events."""

    is_partial: bool
    """Whether not all members of the room are known: see `storage.partial_rooms`."""
    gaps: frozenset[str] | None
    """Events that are noted as missing (`storage.gaps`); None if they are many."""
    held: tuple[tuple[str, str], ...] | None
    """Redactions that wait in any room: the redacted event and the redaction; None if many."""
    content_version: int
    """See `storage.rooms.contents_changed`."""
    has_backlog: bool = False
    """Whether events of a server wait that were not tried yet, if it was asked for."""

    def noted_gaps(self, event_ids: Collection[str]) -> set[str] | None:
        """Those of the events that are noted as missing; None if that is not known."""
        return None if self.gaps is None else set(self.gaps.intersection(event_ids))


_NO_ROOM = ", ".join(["NULL"] * len(RoomRow._fields))
_OF_ROOM = "room_nid = (SELECT room_nid FROM rooms WHERE room_id = ?)"
_READ = (
    f"SELECT 'room', CAST(content_version AS TEXT), '', {COLUMNS} FROM rooms WHERE room_id = ?"
    f" UNION ALL SELECT 'partial', '', '', {_NO_ROOM} FROM partial_rooms WHERE {_OF_ROOM}"
    f" UNION ALL SELECT 'gap', g.event_id, '', {_NO_ROOM}"
    f" FROM (SELECT event_id FROM event_gaps WHERE {_OF_ROOM} LIMIT ?) AS g"
    f" UNION ALL SELECT 'held', h.redacts, h.redaction_id, {_NO_ROOM}"
    " FROM (SELECT redacts, redaction_id FROM pending_redactions LIMIT ?) AS h"
)
_WITH_BACKLOG = (
    f"{_READ} UNION ALL SELECT 'backlog', '', '', {_NO_ROOM}"
    f" WHERE EXISTS (SELECT 1 FROM staged_pdus WHERE {_OF_ROOM} AND origin = ? AND attempts = 0)"
)


def lock(
    txn: Transaction, room_id: str, origin: str | None = None
) -> tuple[RoomRow, RoomNotes] | None:
    """The room of this ID, locked until the transaction ends, and what is noted of it: then that
    stays so but for what the transaction itself does. None if the room is not known.

    Parameters: `origin`, the server of which it is asked whether it has a backlog.
    """
    if txn.dialect.for_update:
        # What is sent with it sees what was committed while it waited.
        sql = f"SELECT 1 FROM rooms WHERE room_id = ?{txn.dialect.for_update}"
        txn.later(sql, (room_id,))
    args = (room_id, room_id, room_id, FEW, FEW)
    if origin is None:
        rows = txn.all(_READ, args)
    else:
        rows = txn.all(_WITH_BACKLOG, (*args, room_id, origin))
    room = next((row for row in rows if row[0] == "room"), None)
    if room is None:
        return None
    gaps = [row[1] for row in rows if row[0] == "gap"]
    held = tuple((row[1], row[2]) for row in rows if row[0] == "held")
    notes = RoomNotes(
        any(row[0] == "partial" for row in rows),
        frozenset(gaps) if len(gaps) < FEW else None,
        held if len(held) < FEW else None,
        int(room[1]),
        any(row[0] == "backlog" for row in rows),
    )
    return from_row(room[3:]), notes
