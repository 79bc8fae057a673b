"""Device lists of this server's users for other servers (server-server API,
`GET /user/devices/{userId}`)."""

from __future__ import annotations

from homeserver.core.types import JsonObject
from storage import cross_signing, device_keys, device_updates, users
from storage.database import Database
from storage.transaction import Transaction

_NOW = 2**62


class DeviceReads:
    """Reads device lists of users of `server_name`."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self.server_name = server_name

    async def devices_of(self, user_id: str) -> JsonObject | None:
        """All devices of a user with their keys; None if there is no such user.

        `stream_id` is the one of the last `m.device_list_update` about them, 0 if there was none.
        """
        return await self._db.read(_devices_of, user_id)


def _devices_of(txn: Transaction, user_id: str) -> JsonObject | None:
    if not users.exists(txn, user_id):
        return None
    signatures = device_keys.signatures_on(txn, [user_id], None)
    devices = []
    for row in device_keys.all_devices(txn, user_id):
        # Devices without keys have an empty object: the key is required.
        described = {"keys": {}, **device_keys.described(row, signatures)}
        devices.append({"device_id": row.device_id, **described})
    return {
        **cross_signing.for_update(txn, user_id),
        "stream_id": device_updates.last_before(txn, [user_id], _NOW).get(user_id, 0),
        "devices": devices,
    }
