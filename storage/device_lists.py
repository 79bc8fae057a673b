"""Whose devices changed, and when. Table `device_list_changes`."""

from __future__ import annotations

from storage.transaction import Transaction


def record(txn: Transaction, user_id: str) -> bool:
    """Note that a user's devices changed; False if this transaction has done so before.

    Advances the clock: to be called last in a transaction.
    """
    if txn.first_pos:
        # The clock is locked: all positions from there on are this transaction's.
        done = txn.one(
            "SELECT 1 FROM device_list_changes WHERE user_id = ? AND pos >= ?"
            " AND only_for IS NULL LIMIT 1",
            (user_id, txn.first_pos),
        )
        if done is not None:
            return False
    txn.execute(
        "INSERT INTO device_list_changes (pos, user_id) VALUES (?, ?)", (txn.next_pos(), user_id)
    )
    return True


def record_for(txn: Transaction, user_id: str, only_for: str) -> None:
    """Note a change of a user's keys that one other user is told of.

    Advances the clock: to be called last in a transaction.
    """
    txn.execute(
        "INSERT INTO device_list_changes (pos, user_id, only_for) VALUES (?, ?, ?)",
        (txn.next_pos(), user_id, only_for),
    )


def changed(txn: Transaction, after: int, upto: int) -> list[str]:
    """All users whose devices changed in `after < pos <= upto`, sorted."""
    rows = txn.all(
        "SELECT DISTINCT user_id FROM device_list_changes WHERE pos > ? AND pos <= ?"
        " AND only_for IS NULL ORDER BY user_id",
        (after, upto),
    )
    return [row[0] for row in rows]


def changed_around(txn: Transaction, user_id: str, after: int, upto: int) -> set[str]:
    """Those of them who are in a room with the user, the user themself, and whose keys the user
    signed."""
    rows = txn.all(
        "SELECT c.user_id FROM (SELECT DISTINCT user_id, only_for FROM device_list_changes"
        " WHERE pos > ? AND pos <= ? AND (only_for IS NULL OR only_for = ?)) c"
        " WHERE c.only_for IS NOT NULL OR c.user_id = ? OR EXISTS (SELECT 1 FROM memberships b"
        " JOIN memberships a ON a.room_nid = b.room_nid"
        " WHERE b.user_id = c.user_id AND b.membership = 'join'"
        " AND a.user_id = ? AND a.membership = 'join')",
        (after, upto, user_id, user_id, user_id),
    )
    return {row[0] for row in rows}
