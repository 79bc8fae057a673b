"""What the database has of users, for administrators: rooms, account data, counts."""

from __future__ import annotations

from collections.abc import Collection

from homeserver.core.errors import not_found
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from storage import account_data, clock, external_ids, memberships, rooms, users
from storage.database import Database
from storage.transaction import Transaction


class UserRecords:
    """Reads of users of this server; of others what this server knows."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    async def memberships(
        self, user_id: UserID, wanted: Collection[str] | None = None
    ) -> dict[str, str]:
        """Room IDs and what the user is there: anything, or one of these.

        Raises MatrixError 404 `M_NOT_FOUND` for an unknown user of this server.
        """
        return await self._db.read(self._memberships, user_id, wanted)

    def _memberships(
        self, txn: Transaction, user_id: UserID, wanted: Collection[str] | None
    ) -> dict[str, str]:
        self._check_known(txn, user_id)
        rows = memberships.of_user(txn, user_id, wanted)
        found = rooms.get_many(txn, [row.room_nid for row in rows])
        return {found[row.room_nid].room_id: row.membership for row in rows}

    async def account_data(
        self, user_id: UserID
    ) -> tuple[dict[str, JsonObject], dict[str, dict[str, JsonObject]]]:
        """The account data of a user by type, and that of rooms by room ID and type."""
        return await self._db.read(_account_data, user_id)

    async def invites_sent(self, user_id: UserID, since_ts: int) -> int:
        """How many invites a user has sent since a time in milliseconds. Raises as
        `memberships`."""

        def read(txn: Transaction) -> int:
            self._check_known(txn, user_id)
            return memberships.invites_sent(txn, user_id, since_ts)

        return await self._db.read(read)

    async def rooms_joined(self, user_id: UserID, since_ts: int) -> int:
        """How many rooms a user has joined since a time in milliseconds. Raises as
        `memberships`."""

        def read(txn: Transaction) -> int:
            self._check_known(txn, user_id)
            return memberships.rooms_joined(txn, user_id, since_ts)

        return await self._db.read(read)

    async def of_external_id(self, provider: str, external_id: str) -> str | None:
        """The account of somebody whom a single sign-on provider knows."""
        return await self._db.read(external_ids.get_user, provider, external_id)

    def _check_known(self, txn: Transaction, user_id: UserID) -> None:
        if user_id.domain == self._server_name and not users.exists(txn, user_id):
            raise not_found("User not found.")


def _account_data(
    txn: Transaction, user_id: str
) -> tuple[dict[str, JsonObject], dict[str, dict[str, JsonObject]]]:
    now = clock.position(txn)
    of_rooms = account_data.room_items(txn, user_id, None, now)
    found = rooms.get_many(txn, [item.room_nid for item in of_rooms])
    by_room: dict[str, dict[str, JsonObject]] = {}
    for item in of_rooms:
        by_room.setdefault(found[item.room_nid].room_id, {})[item.type] = item.content
    return dict(account_data.global_items(txn, user_id, None, now)), by_room
