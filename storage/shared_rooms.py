"""Who shares rooms with a user, now and at an earlier position: reads memberships and their log."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, TypeAlias

from storage.transaction import Transaction

Pair: TypeAlias = tuple[int, str]
"""Number of a room, and a user."""

# Changes between being joined and not being joined.
_MOVES = (
    "l.pos > ? AND l.pos <= ? AND l.membership <> l.previous"
    " AND (l.membership = 'join' OR l.previous = 'join')"
)


class Move(NamedTuple):
    """Whether a user was joined to a room at the beginning and at the end of a span."""

    joined_then: bool
    joined_now: bool


def any_move(txn: Transaction, after: int, upto: int) -> bool:
    """Whether anybody joined or left anything in `after < pos <= upto`."""
    found = txn.one(
        f"SELECT 1 FROM membership_log l WHERE {_MOVES} LIMIT 1",
        (after, upto),
    )
    return found is not None


def own_moves(txn: Transaction, user_id: str, after: int, upto: int) -> dict[int, Move]:
    """Rooms that the user joined or left in `after < pos <= upto`."""
    moves: dict[int, Move] = {}
    for room_nid, membership, previous in txn.all(
        "SELECT l.room_nid, l.membership, l.previous FROM membership_log l"
        f" WHERE l.user_id = ? AND {_MOVES} ORDER BY l.pos",
        (user_id, after, upto),
    ):
        first = moves.get(room_nid)
        then = first.joined_then if first else previous == "join"
        moves[room_nid] = Move(then, membership == "join")
    return moves


def moves_around(
    txn: Transaction, user_id: str, also_in: Collection[int], after: int, upto: int
) -> dict[Pair, bool]:
    """Who joined or left in `after < pos <= upto`, and whether they were joined before.

    In the rooms that the user is joined to, and `also_in` others; the user's own included.
    """
    rows = txn.all(
        "SELECT l.pos, l.room_nid, l.user_id, l.previous FROM memberships a"
        " JOIN membership_log l ON l.room_nid = a.room_nid"
        f" WHERE a.user_id = ? AND a.membership = 'join' AND {_MOVES}",
        (user_id, after, upto),
    )
    if also_in:
        where, args = txn.any_of("l.room_nid", also_in)
        rows += txn.all(
            "SELECT l.pos, l.room_nid, l.user_id, l.previous FROM membership_log l"
            f" WHERE {where} AND {_MOVES}",
            [*args, after, upto],
        )
    before: dict[Pair, bool] = {}
    for _, room_nid, other, previous in sorted(rows):
        before.setdefault((room_nid, other), previous == "join")
    return before


def joined_users(txn: Transaction, room_nids: Collection[int]) -> set[str]:
    """Everybody who is joined to one of the rooms."""
    if not room_nids:
        return set()
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT DISTINCT user_id FROM memberships WHERE {where} AND membership = 'join'", args
    )
    return {row[0] for row in rows}


def joined_pairs(
    txn: Transaction, user_id: str, also_in: Collection[int], others: Collection[str]
) -> set[Pair]:
    """Which of the others are joined to which rooms: the user's, and `also_in` others."""
    chosen, users = txn.any_of("b.user_id", others)
    rows = txn.all(
        "SELECT b.room_nid, b.user_id FROM memberships b"
        " JOIN memberships a ON a.room_nid = b.room_nid"
        f" WHERE {chosen} AND b.membership = 'join' AND a.user_id = ? AND a.membership = 'join'",
        [*users, user_id],
    )
    if also_in:
        where, args = txn.any_of("b.room_nid", also_in)
        rows += txn.all(
            "SELECT b.room_nid, b.user_id FROM memberships b"
            f" WHERE {where} AND {chosen} AND b.membership = 'join'",
            [*args, *users],
        )
    return {(row[0], row[1]) for row in rows}
