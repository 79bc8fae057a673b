"""A user's devices: listing, naming and deleting them."""

from __future__ import annotations

from collections.abc import Collection

from homeserver.core.errors import not_found
from homeserver.users.device_activity import DeviceActivity
from homeserver.users.hooks import UserHooks
from homeserver.users.sessions import Sessions, clipped_device_name
from storage import dehydrated_devices, devices
from storage.database import Database
from storage.devices import DeviceRow
from storage.transaction import Transaction


class Devices:
    """The devices of local users."""

    def __init__(
        self, db: Database, hooks: UserHooks, sessions: Sessions, activity: DeviceActivity
    ) -> None:
        self._db = db
        self._hooks = hooks
        self._sessions = sessions
        self._activity = activity

    async def of_user(self, user_id: str) -> list[DeviceRow]:
        """All devices of a user, in the order of their IDs."""
        rows = await self._db.read(devices.get_devices, user_id)
        return [self._fresh(row) for row in rows]

    async def get(self, user_id: str, device_id: str) -> DeviceRow:
        """One device. Raises MatrixError 404 M_NOT_FOUND."""
        row = await self._db.read(devices.get_device, user_id, device_id)
        if row is None:
            raise not_found("There is no such device.")
        return self._fresh(row)

    async def dehydrated(self, user_id: str) -> str | None:
        """The ID of the device of a user that is dehydrated, if one is."""
        row = await self._db.read(dehydrated_devices.get, user_id)
        return None if row is None else row.device_id

    def _fresh(self, row: DeviceRow) -> DeviceRow:
        """The row with what this process has seen and not yet written."""
        seen = self._activity.pending(row.user_id, row.device_id)
        if seen is None or (row.last_seen_ts or 0) > seen.ts:
            return row
        return row._replace(
            last_seen_ts=seen.ts, last_seen_ip=seen.ip, last_seen_user_agent=seen.user_agent
        )

    async def rename(self, user_id: str, device_id: str, display_name: str | None) -> None:
        """Name a device. Raises MatrixError 404 M_NOT_FOUND."""
        name = clipped_device_name(display_name)
        await self._db.write(self._rename, user_id, device_id, name)

    def _rename(self, txn: Transaction, user_id: str, device_id: str, name: str | None) -> None:
        if not devices.set_display_name(txn, user_id, device_id, name):
            raise not_found("There is no such device.")
        for changed in self._hooks.device_changed:
            changed(txn, user_id, device_id)

    async def delete(self, user_id: str, device_ids: Collection[str]) -> None:
        """Delete devices with their sessions; those that there are not are passed over."""
        wanted = sorted({each for each in device_ids if "\x00" not in each})
        await self._db.write(self._sessions.end_devices_in, user_id, wanted)
