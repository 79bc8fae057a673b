"""Whose devices changed, for clients that ask (client-server API, `GET /keys/changes`)."""

from __future__ import annotations

from homeserver.sync.streams import device_lists
from storage import clock
from storage.database import Database
from storage.transaction import Transaction


class DeviceListChanges:
    """Answers as the syncs in between have, or would have."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def since(self, user_id: str, since: int) -> tuple[list[str], list[str]]:
        """`changed` and `left` from the position of a token until now, sorted."""
        return await self._db.read(_changes, user_id, since)


def _changes(txn: Transaction, user_id: str, since: int) -> tuple[list[str], list[str]]:
    now = clock.position(txn)
    return device_lists.changes(txn, user_id, since, now) if since < now else ([], [])
