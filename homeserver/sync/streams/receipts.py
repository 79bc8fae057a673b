"""Receipts in sync: one `m.receipt` event for each room."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from homeserver.core.types import JsonObject
from storage import account_data, receipts
from storage.receipts import Receipt
from storage.transaction import Transaction


def room_changes(
    txn: Transaction, user_id: str, since: int | None, now: int, room_nids: Collection[int]
) -> dict[int, JsonObject]:
    """The `m.receipt` event, without a room ID, of each room that has receipts new to the user.

    Receipts set in `since < pos <= now`; all when `since` is None. Private ones are the user's.
    """
    if not room_nids:
        return {}
    by_room: dict[int, list[Receipt]] = {}
    for receipt in receipts.visible(txn, user_id, since, now, room_nids):
        by_room.setdefault(receipt.room_nid, []).append(receipt)
    return {
        room_nid: {"type": "m.receipt", "content": content(found)}
        for room_nid, found in by_room.items()
    }


def content(found: Iterable[Receipt]) -> JsonObject:
    """The content of an `m.receipt` event.

    It has one place for each event, type and user: an unthreaded receipt goes before threaded
    ones (client-server API, "Receipts"; MSC4102), else the newest is shown.
    """
    shown: JsonObject = {}
    for receipt in found:
        users = shown.setdefault(receipt.event_id, {}).setdefault(receipt.type, {})
        if receipt.thread_id == receipts.UNTHREADED:
            users[receipt.user_id] = {"ts": receipt.ts}
        elif "thread_id" in users.get(receipt.user_id, {"thread_id": None}):
            users[receipt.user_id] = {"ts": receipt.ts, "thread_id": receipt.thread_id}
    return shown


def changed_rooms(
    txn: Transaction, user_id: str, since: int, now: int, room_nids: Collection[int]
) -> set[int]:
    """Those of the rooms with receipts or account data new to the user since `since`.

    The user's unread counts of a room change with its events and with the user's own receipts.
    """
    if not room_nids:
        return set()
    found = receipts.changed_rooms(txn, user_id, since, now, room_nids)
    return found | (account_data.changed_rooms(txn, user_id, since, now) & set(room_nids))
