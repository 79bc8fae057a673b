"""Messages to the syncing device.

A message is given out until a sync comes with a token that reaches it: only then it has arrived.
Parallel syncs therefore lose nothing, and a repeated token gets the same again.
"""

from __future__ import annotations

import json

from homeserver.core.types import JsonObject
from storage import to_device
from storage.transaction import Transaction

LIMIT = 100
"""Messages in one answer."""


def messages(
    txn: Transaction,
    user_id: str,
    device_id: str,
    since: int | None,
    now: int,
    limit: int = LIMIT,
) -> tuple[list[JsonObject], int | None]:
    """Messages in `since < pos <= now`, the oldest first, at most `limit` (at least 1).

    The second value is the position of the last of them if more are waiting, else None: the token
    of the answer must not pass it.
    """
    found = to_device.waiting(txn, user_id, device_id, since or 0, now, limit + 1)
    reached = found[limit - 1][0] if len(found) > limit else None
    return [json.loads(text) for _, text in found[:limit]], reached


def has_acknowledged(txn: Transaction, user_id: str, device_id: str, upto: int) -> bool:
    """Whether there are messages for `acknowledge` to delete."""
    return to_device.has_any(txn, user_id, device_id, upto)


def acknowledge(txn: Transaction, user_id: str, device_id: str, upto: int) -> None:
    """Delete the messages that the device got: `upto` is the position of the token it sent."""
    to_device.delete(txn, user_id, device_id, upto)
