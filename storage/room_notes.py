"""What is noted of a room, and waits for events of other servers: asked for each batch of them.

Reads `partial_rooms`, `event_gaps`, `pending_redactions` and `rooms` by one statement: mostly there
is next to nothing in the first three.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

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

    def noted_gaps(self, event_ids: Collection[str]) -> set[str] | None:
        """Those of the events that are noted as missing; None if that is not known."""
        return None if self.gaps is None else set(self.gaps.intersection(event_ids))


def get(txn: Transaction, room_nid: int) -> RoomNotes:
    """What is noted of a room, which is locked: then it stays so but for what the transaction
    itself does."""
    rows = txn.all(
        "SELECT 'partial', '', '' FROM partial_rooms WHERE room_nid = ?"
        " UNION ALL SELECT * FROM (SELECT 'gap', event_id, '' FROM event_gaps"
        " WHERE room_nid = ? LIMIT ?) AS g"
        " UNION ALL SELECT * FROM (SELECT 'held', redacts, redaction_id FROM pending_redactions"
        " LIMIT ?) AS h"
        " UNION ALL SELECT 'version', CAST(content_version AS TEXT), '' FROM rooms"
        " WHERE room_nid = ?",
        (room_nid, room_nid, FEW, FEW, room_nid),
    )
    gaps = [row[1] for row in rows if row[0] == "gap"]
    held = tuple((row[1], row[2]) for row in rows if row[0] == "held")
    return RoomNotes(
        any(row[0] == "partial" for row in rows),
        frozenset(gaps) if len(gaps) < FEW else None,
        held if len(held) < FEW else None,
        next((int(row[1]) for row in rows if row[0] == "version"), 0),
    )
