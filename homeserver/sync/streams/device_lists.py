"""Whose devices a client should look at again, and whose it may forget.

1. Changed are those who share a room with the user and whose devices changed, and those who share
   one now and did not at `since`. Left are those who shared one at `since` and do not now.
2. Only memberships that changed in between are looked at: of the user, in any room, and of others,
   in the rooms that the user is in now or was in then. Who was joined at `since` is told by the
   first change after it, which names the membership before.
"""

from __future__ import annotations

from storage import device_lists, shared_rooms
from storage.shared_rooms import Pair
from storage.transaction import Transaction


def changed_users(txn: Transaction, since: int, now: int) -> list[str]:
    """All users known to this server whose devices changed in `since < pos <= now`, sorted."""
    return device_lists.changed(txn, since, now)


def changes(txn: Transaction, user_id: str, since: int, now: int) -> tuple[list[str], list[str]]:
    """`changed` and `left` of a sync that had `since` before, sorted (client-server API,
    "End-to-End Encryption", "Extensions to /sync")."""
    changed = device_lists.changed_around(txn, user_id, since, now)
    came, went = moved(txn, user_id, since, now)
    return sorted(changed | came), sorted(went)


def moved(txn: Transaction, user_id: str, since: int, now: int) -> tuple[set[str], set[str]]:
    """Users who share a room now and did not at `since`, and the other way round."""
    if not shared_rooms.any_move(txn, since, now):
        return set(), set()
    own = shared_rooms.own_moves(txn, user_id, since, now)
    entered = {room for room, move in own.items() if move.joined_now and not move.joined_then}
    exited = {room for room, move in own.items() if move.joined_then and not move.joined_now}
    # In each room, who was joined at `since` as far as it is not as it is now.
    joined_then = shared_rooms.moves_around(txn, user_id, exited, since, now)
    concerned = {user for _, user in joined_then}
    concerned |= shared_rooms.joined_users(txn, entered | exited)
    concerned.discard(user_id)
    if not concerned:
        return set(), set()
    pairs_now = shared_rooms.joined_pairs(txn, user_id, exited, concerned)
    pairs_then: set[Pair] = {pair for pair in pairs_now if joined_then.get(pair, True)}
    pairs_then |= {pair for pair, joined in joined_then.items() if joined}
    with_now = {user for room, user in pairs_now if room not in exited}
    with_then = {user for room, user in pairs_then if room not in entered}
    with_then.discard(user_id)
    return with_now - with_then, with_then - with_now
