"""Account data in sync: global, and of rooms. Push rules are the item `m.push_rules`."""

from __future__ import annotations

from collections.abc import Collection

from homeserver.core.types import JsonObject
from storage import account_data, push_rules
from storage.transaction import Transaction


def global_changes(txn: Transaction, user_id: str, since: int | None, now: int) -> list[JsonObject]:
    """Items that changed in `since < pos <= now`; everything when `since` is None."""
    changes = [
        _event(data_type, content)
        for data_type, content in account_data.global_items(txn, user_id, since, now)
    ]
    if since is None or push_rules.changed(txn, user_id, since, now):
        rules = push_rules.get(txn, user_id).to_json()
        changes.append(_event("m.push_rules", {"global": rules}))
    return changes


def room_changes(
    txn: Transaction,
    user_id: str,
    since: int | None,
    now: int,
    room_nids: Collection[int] | None = None,
) -> dict[int, list[JsonObject]]:
    """As `global_changes`, by the number of the room; of these rooms, or of all."""
    changes: dict[int, list[JsonObject]] = {}
    for item in account_data.room_items(txn, user_id, since, now, room_nids):
        changes.setdefault(item.room_nid, []).append(_event(item.type, item.content))
    return changes


def _event(data_type: str, content: JsonObject) -> JsonObject:
    return {"type": data_type, "content": content}
