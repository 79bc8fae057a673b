"""Users whose accounts were erased, with the positions at which that happened.

Client-server API, `POST /account/deactivate`: whoever joins a room after the erasure is served
redacted copies of the user's events.
"""

from __future__ import annotations

from collections.abc import Collection

from storage import clock
from storage.transaction import Transaction


def record(txn: Transaction, user_id: str) -> None:
    """Note that the user's account is erased as of now."""
    txn.execute(
        "INSERT INTO erased_users (user_id, pos) VALUES (?, ?) ON CONFLICT DO NOTHING",
        # What happened up to now came before.
        (user_id, clock.position(txn) + 1),
    )


def among(txn: Transaction, user_ids: Collection[str]) -> dict[str, int]:
    """Those of the users who were erased, with the positions at which they were."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    return dict(txn.all(f"SELECT user_id, pos FROM erased_users WHERE {where}", args))


def forget(txn: Transaction, user_id: str) -> None:
    """The account is open again: newcomers see what it sent."""
    txn.execute("DELETE FROM erased_users WHERE user_id = ?", (user_id,))
