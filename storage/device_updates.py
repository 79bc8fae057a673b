"""Changes of local users' devices, for the servers that they share rooms with. Table
`device_updates`; its positions are the `stream_id` of `m.device_list_update`."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.outgoing import CHANNEL
from storage.transaction import Transaction

SIGNING_KEYS = ""
"""In place of a device ID: the user's cross-signing keys."""


class Update(NamedTuple):
    """A change of a device."""

    pos: int
    user_id: str
    device_id: str


def record(txn: Transaction, user_id: str, device_id: str, now_ms: int) -> None:
    """Note that a device was added, changed, renamed or deleted.

    Advances the clock: to be called last in a transaction.
    """
    txn.execute(
        "INSERT INTO device_updates (pos, user_id, device_id, updated_ts) VALUES (?, ?, ?, ?)",
        (txn.next_pos(), user_id, device_id, now_ms),
    )
    txn.notify(CHANNEL)


def record_signing_keys(txn: Transaction, user_id: str, now_ms: int) -> None:
    """Note that a user's master or self-signing key changed; otherwise as `record`."""
    record(txn, user_id, SIGNING_KEYS, now_ms)


def between(txn: Transaction, after: int, upto: int) -> list[Update]:
    """The changes of `after < pos <= upto`, in order."""
    rows = txn.all(
        "SELECT pos, user_id, device_id FROM device_updates WHERE pos > ? AND pos <= ?"
        " ORDER BY pos",
        (after, upto),
    )
    return [Update(*row) for row in rows]


def last_before(txn: Transaction, user_ids: Collection[str], pos: int) -> dict[str, int]:
    """Each user's last change of a device up to a position, as far as there was one."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(
        f"SELECT user_id, MAX(pos) FROM device_updates WHERE {where} AND pos <= ?"
        " AND device_id <> '' GROUP BY user_id",
        [*args, pos],
    )
    return {row[0]: row[1] for row in rows}


def prune(txn: Transaction, before_ms: int) -> None:
    """Delete old changes of devices that changed again since."""
    txn.execute(
        "DELETE FROM device_updates WHERE updated_ts < ? AND EXISTS (SELECT 1 FROM"
        " device_updates d WHERE d.user_id = device_updates.user_id"
        " AND d.device_id = device_updates.device_id AND d.pos > device_updates.pos)",
        (before_ms,),
    )
