"""Tells those who are concerned that a user's devices, or the keys that vouch for them, changed.

The hints go to rooms, not to people: a user has fewer rooms than there are others in them.
"""

from __future__ import annotations

from storage import device_lists, memberships
from storage.transaction import Transaction


def device_changed(txn: Transaction, user_id: str, device_id: str) -> None:
    """A hook of `UserHooks.device_changed`: list the change in syncs and wake those that wait."""
    list_changed(txn, user_id)


def list_changed(txn: Transaction, user_id: str) -> None:
    """As `device_changed`; the user may be one of another server.

    Advances the clock: to be called last in a transaction.
    """
    rooms = memberships.of_user(txn, user_id, ["join"])
    if device_lists.record(txn, user_id):
        txn.notify(f"user:{user_id}", *(f"room:{row.room_nid}" for row in rooms))


def keys_changed_for(txn: Transaction, user_id: str, viewer: str) -> None:
    """What one user sees of another's keys changed: they signed them. Nobody else is told.

    Advances the clock: to be called last in a transaction.
    """
    device_lists.record_for(txn, user_id, viewer)
    txn.notify(f"user:{viewer}")
