"""Account data: what clients keep for a user, globally or for a room ("Client Config").

- Any JSON object of at most 512 KiB, under a type of at most 255 bytes.
- `m.fully_read` and `m.push_rules` are the server's and are read only.
- An item that is deleted, or set to `{}`, is not there any more (MSC3391). Clients that sync from
  an earlier time get it with content `{}`.
"""

from __future__ import annotations

import json
from typing import Any

from homeserver.core.errors import MatrixError, forbidden, invalid_param, not_found, too_large
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.web.request import Requester
from storage import account_data, push_rules, receipts, unread
from storage.account_data import GLOBAL
from storage.database import Database
from storage.transaction import Transaction

MAX_TYPE_BYTES = 255
MAX_CONTENT_BYTES = 512 * 1024
MAX_ITEMS = 20_000
"""Most items of one user."""

PUSH_RULES = "m.push_rules"
SERVER_MANAGED = frozenset({"m.fully_read", PUSH_RULES})


class AccountData:
    """The account data of this server's users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(
        self, requester: Requester, user_id: UserID, data_type: str, room_id: RoomID | None = None
    ) -> JsonObject:
        """One item. Raises MatrixError: 403 M_FORBIDDEN for another user's, 404 if not set."""
        check_own(requester, user_id)
        content: JsonObject | None
        if data_type == PUSH_RULES and room_id is None:
            content = {"global": (await self._db.query(push_rules.get, user_id)).to_json()}
        else:
            content = await self._db.query(account_data.get, user_id, room_id or GLOBAL, data_type)
        # What is empty was deleted.
        if not content:
            raise not_found("There is no account data of this type.")
        return content

    async def put(
        self,
        requester: Requester,
        user_id: UserID,
        data_type: str,
        content: JsonObject,
        room_id: RoomID | None = None,
    ) -> None:
        """Set one item.

        Raises MatrixError: 403 M_FORBIDDEN for another user's, 405 M_BAD_JSON for what the
        server manages, 400 M_INVALID_PARAM, 413 M_TOO_LARGE.
        """
        _check_type(requester, user_id, data_type)
        if not content:
            await self._db.write(_delete, user_id, room_id or GLOBAL, data_type)
            return
        text = encode(content)
        await self._db.write(_put, user_id, room_id or GLOBAL, data_type, text)

    async def delete(
        self, requester: Requester, user_id: UserID, data_type: str, room_id: RoomID | None = None
    ) -> None:
        """Delete one item, if it is there. Raises MatrixError as `put`."""
        _check_type(requester, user_id, data_type)
        await self._db.write(_delete, user_id, room_id or GLOBAL, data_type)


def _check_type(requester: Requester, user_id: str, data_type: str) -> None:
    check_own(requester, user_id)
    if data_type in SERVER_MANAGED:
        raise MatrixError(405, "M_BAD_JSON", f"{data_type} cannot be set as account data.")
    if len(data_type.encode()) > MAX_TYPE_BYTES:
        raise invalid_param(f"A type has at most {MAX_TYPE_BYTES} bytes.")


def check_own(requester: Requester, user_id: str) -> None:
    """Refuse the private data of another user with 403."""
    if requester.user_id != user_id:
        raise forbidden("The data of another user is private.")


def encode(content: JsonObject) -> str:
    """The text to store. Raises MatrixError 413 M_TOO_LARGE."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MAX_CONTENT_BYTES:
        raise too_large("Account data of this size is not accepted.")
    return text


def _put(txn: Transaction, user_id: str, room_id: str, data_type: str, text: str) -> None:
    old = account_data.get_versioned(txn, user_id, room_id, data_type)
    check_count(txn, user_id, old)
    account_data.put(txn, user_id, room_id, data_type, text, txn.next_pos())
    txn.notify(f"user:{user_id}")


def _delete(txn: Transaction, user_id: str, room_id: str, data_type: str) -> None:
    if account_data.has(txn, user_id, room_id, data_type):
        pos = txn.next_pos()
        account_data.put(txn, user_id, room_id, data_type, account_data.DELETED, pos)
        txn.notify(f"user:{user_id}")


def check_count(txn: Transaction, user_id: str, old: Any) -> None:
    """Refuse a further item (`old` is None) of a user who has too many, with 413."""
    if old is not None or account_data.count(txn, user_id) < MAX_ITEMS:
        return
    account_data.forget_deleted(txn, user_id)
    if account_data.count(txn, user_id) >= MAX_ITEMS:
        raise too_large("There are too many items of account data.")


def device_deleted(txn: Transaction, user_id: str, device_id: str) -> None:
    """A hook of `UserHooks.device_deleted`: its notification settings go with it (MSC3890)."""
    for prefix in _OF_DEVICES:
        _delete(txn, user_id, GLOBAL, prefix + device_id)


_OF_DEVICES = (
    "m.local_notification_settings.",
    "org.matrix.msc3890.local_notification_settings.",
)


def erase(txn: Transaction, user_id: str) -> None:
    """Remove what a user who is erased kept here."""
    account_data.delete_all(txn, user_id)
    push_rules.delete(txn, user_id)
    receipts.delete_all(txn, user_id)
    unread.delete_marks(txn, user_id)
