"""Collecting nodes of a room's state trees that nothing refers to any more. Table `state_nodes`.

Events go on coming meanwhile. Their roots are safe for two reasons:

1. `roots` sees all roots at one moment, and all below them is kept.
2. A root that is newer is made of nodes that were written since, whose `saved` tells so, and of
   parts of roots that were there when it was made: of one of 1, or of one of 2.

What writes trees of a room holds the room's lock. A collection begins by taking the lock and a
position, so that everything that is written later has that position or a later one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from storage.transaction import Transaction

_AT_ONCE = 20_000


def roots(txn: Transaction, room_nid: int) -> set[bytes]:
    """The roots of all states of a room that something refers to.

    To be called in a transaction that reads: all of its statements see the same moment.
    """
    rows = txn.all(
        "SELECT root FROM room_states WHERE room_nid = ?"
        " UNION SELECT state_root FROM rooms WHERE room_nid = ? AND state_root IS NOT NULL"
        " UNION SELECT state_before FROM events WHERE room_nid = ? AND pos IS NULL"
        " AND state_before IS NOT NULL"
        " UNION SELECT state_after FROM events WHERE room_nid = ? AND pos IS NULL"
        " AND state_after IS NOT NULL",
        (room_nid,) * 4,
    )
    found = {bytes(row[0]) for row in rows}
    above: tuple[int, ...] = ()
    while True:
        behind = " AND (depth, pos) > (?, ?)" if above else ""
        # No statement takes long, however long the history is.
        rows = txn.all(
            "SELECT state_before, state_after, depth, pos FROM events WHERE room_nid = ?"
            f" AND pos IS NOT NULL{behind} ORDER BY depth, pos LIMIT ?",
            (room_nid, *above, _AT_ONCE),
        )
        found.update(bytes(root) for row in rows for root in row[:2] if root is not None)
        if len(rows) < _AT_ONCE:
            return found
        above = (rows[-1][2], rows[-1][3])


def load(txn: Transaction, room_nid: int, hashes: Collection[bytes]) -> Mapping[bytes, bytes]:
    """Nodes by their hashes, past the cache: each is looked at once."""
    where, args = txn.any_of("hash", hashes)
    rows = txn.all(
        f"SELECT hash, body FROM state_nodes WHERE room_nid = ? AND {where}", [room_nid, *args]
    )
    return {bytes(row[0]): bytes(row[1]) for row in rows}


def older(
    txn: Transaction, room_nid: int, saved_before: int, behind: bytes, limit: int
) -> list[bytes]:
    """Hashes of nodes that were written before a position, in order, behind one of them."""
    rows = txn.all(
        "SELECT hash FROM state_nodes WHERE room_nid = ? AND hash > ? AND saved < ?"
        " ORDER BY hash LIMIT ?",
        (room_nid, behind, saved_before, limit),
    )
    return [bytes(row[0]) for row in rows]


def delete(txn: Transaction, room_nid: int, hashes: Sequence[bytes], saved_before: int) -> int:
    """Delete nodes, but for those that were written since; how many."""
    if not hashes:
        return 0
    where, args = txn.any_of("hash", hashes)
    return txn.execute(
        f"DELETE FROM state_nodes WHERE room_nid = ? AND saved < ? AND {where}",
        [room_nid, saved_before, *args],
    )
