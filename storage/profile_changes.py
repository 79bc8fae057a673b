"""When fields of local users' profiles changed. Table `profile_changes`."""

from __future__ import annotations

from storage.transaction import Transaction

CHANNEL = "profiles"
"""Hints that some profile changed."""


def record(txn: Transaction, user_id: str, field: str) -> None:
    """A field was set or removed. Takes a position: to be called last."""
    txn.execute(
        "INSERT INTO profile_changes (user_id, field, pos) VALUES (?, ?, ?)"
        " ON CONFLICT (user_id, field) DO UPDATE SET pos = excluded.pos",
        (user_id, field, txn.next_pos()),
    )
    txn.notify(CHANNEL)


def around(txn: Transaction, user_id: str, after: int, upto: int) -> dict[str, set[str]]:
    """Fields that changed in `after < pos <= upto`, by user: of those who share a room with a
    user, and of the user."""
    rows = txn.all(
        "SELECT c.user_id, c.field FROM profile_changes c WHERE c.pos > ? AND c.pos <= ?"
        " AND (c.user_id = ? OR EXISTS (SELECT 1 FROM memberships b"
        " JOIN memberships a ON a.room_nid = b.room_nid"
        " WHERE b.user_id = c.user_id AND b.membership = 'join'"
        " AND a.user_id = ? AND a.membership = 'join'))",
        (after, upto, user_id, user_id),
    )
    found: dict[str, set[str]] = {}
    for changed, field in rows:
        found.setdefault(changed, set()).add(field)
    return found


def neighbours(txn: Transaction, user_id: str, limit: int) -> set[str]:
    """Local users with a profile who share a room with a user; at most so many."""
    rows = txn.all(
        "SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b"
        " ON b.room_nid = a.room_nid AND b.membership = 'join' AND b.is_local"
        " WHERE a.user_id = ? AND a.membership = 'join'"
        " AND EXISTS (SELECT 1 FROM profiles p WHERE p.user_id = b.user_id) LIMIT ?",
        (user_id, limit),
    )
    return {row[0] for row in rows}


def members(txn: Transaction, room_nid: int, limit: int) -> list[str]:
    """Local users with a profile in a room; at most so many."""
    rows = txn.all(
        "SELECT m.user_id FROM memberships m WHERE m.room_nid = ? AND m.membership = 'join'"
        " AND m.is_local AND EXISTS (SELECT 1 FROM profiles p WHERE p.user_id = m.user_id)"
        " LIMIT ?",
        (room_nid, limit),
    )
    return [row[0] for row in rows]
