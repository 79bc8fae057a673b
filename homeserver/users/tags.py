"""Tags of rooms, kept as the room account data `m.tag` ("Room Tagging")."""

from __future__ import annotations

from homeserver.core.errors import bad_json, invalid_param
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.users.account_data import check_count, check_own, encode
from homeserver.web.request import Requester
from storage import account_data
from storage.database import Database
from storage.transaction import Transaction

MAX_TAG_BYTES = 255
TAG = "m.tag"


class Tags:
    """The tags of this server's users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, requester: Requester, user_id: UserID, room_id: RoomID) -> JsonObject:
        """The tags of a room, by name. Raises MatrixError 403 M_FORBIDDEN for another user's."""
        check_own(requester, user_id)
        tags = tags_of(await self._db.query(account_data.get, user_id, room_id, TAG))
        return {name: info for name, info in tags.items() if isinstance(info, dict)}

    async def put(
        self,
        requester: Requester,
        user_id: UserID,
        room_id: RoomID,
        tag: str,
        info: JsonObject,
    ) -> None:
        """Add a tag, or change it.

        Raises MatrixError: 403 M_FORBIDDEN for another user's; 400 M_BAD_JSON when `order` is
        not a number, M_INVALID_PARAM when it is not from 0 to 1 or the name is too long.
        """
        check_own(requester, user_id)
        if len(tag.encode()) > MAX_TAG_BYTES:
            raise invalid_param(f"The name of a tag has at most {MAX_TAG_BYTES} bytes.")
        order = info.get("order", 0)
        if isinstance(order, bool) or not isinstance(order, int | float):
            raise bad_json("order must be a number.")
        if not 0 <= order <= 1:
            raise invalid_param("order must be from 0 to 1.")
        await self._db.write(_change, user_id, room_id, tag, info)

    async def delete(
        self, requester: Requester, user_id: UserID, room_id: RoomID, tag: str
    ) -> None:
        """Remove a tag; no error if there is none. Raises MatrixError 403 M_FORBIDDEN."""
        check_own(requester, user_id)
        await self._db.write(_change, user_id, room_id, tag, None)


def tags_of(content: JsonObject | None) -> JsonObject:
    """The tags in the content of `m.tag`, which clients may also set as they like."""
    tags = content.get("tags") if content else None
    return tags if isinstance(tags, dict) else {}


def _change(
    txn: Transaction, user_id: str, room_id: str, tag: str, info: JsonObject | None
) -> None:
    old = account_data.get_versioned(txn, user_id, room_id, TAG)
    content, old_pos = old if old is not None else ({}, None)
    tags = dict(tags_of(content))
    if info is not None:
        tags[tag] = info
    elif tags.pop(tag, None) is None:
        return
    text = encode({**content, "tags": tags})
    check_count(txn, user_id, old)
    pos = txn.next_pos()
    account_data.replace(txn, user_id, room_id, TAG, text, pos, old_pos)
    txn.notify(f"user:{user_id}")
