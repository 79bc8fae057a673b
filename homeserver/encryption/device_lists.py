"""Tells those who are concerned that a user's devices changed."""

from __future__ import annotations

from storage import device_lists, memberships
from storage.transaction import Transaction


def device_changed(txn: Transaction, user_id: str, device_id: str) -> None:
    """A hook of `UserHooks.device_changed`: list the change in syncs and wake those that wait.

    The hints go to rooms, not to people: a user has fewer rooms than there are others in them.
    """
    rooms = memberships.of_user(txn, user_id, ["join"])
    if device_lists.record(txn, user_id):
        txn.notify(f"user:{user_id}", *(f"room:{row.room_nid}" for row in rooms))
