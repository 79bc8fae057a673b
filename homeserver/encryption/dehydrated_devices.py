"""Dehydrated devices (MSC3814): a device that receives keys while its user is logged out.

The server holds its secrets, encrypted by the user, and its to-device messages. A new device of
the user takes both, and with them the keys that were sent meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IReactorTime

from homeserver.core import canonical
from homeserver.core.errors import bad_json, forbidden, invalid_param, not_found, too_large
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.encryption.uploads import KeyUploads, Upload
from homeserver.users.hooks import UserHooks
from homeserver.users.sessions import Sessions, check_device_id, clipped_device_name
from storage import dehydrated_devices, devices, to_device, users
from storage.database import Database
from storage.dehydrated_devices import DehydratedRow
from storage.devices import DeviceRow
from storage.transaction import Transaction

MAX_DATA_BYTES = 262_144
"""Of the JSON of `device_data`: an account with as many one-time keys as clients make."""
MAX_EVENTS = 100
"""Messages in one answer."""


@dataclass(frozen=True, slots=True)
class NewDevice:
    """What a client uploads; `keys` are those of `KeyUploads.upload`."""

    device_id: str
    display_name: str | None
    device_data: JsonObject
    device_keys: JsonObject
    one_time_keys: Mapping[str, Any]
    fallback_keys: Mapping[str, Any]


class DehydratedDevices:
    """Keeps the dehydrated devices of local users."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        sessions: Sessions,
        uploads: KeyUploads,
        hooks: UserHooks,
    ) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._uploads = uploads
        self._hooks = hooks

    async def put(self, user_id: UserID, new: NewDevice) -> None:
        """Set the user's dehydrated device; the former one is deleted.

        Raises MatrixError: 400 M_INVALID_PARAM (also if another device has this ID), M_BAD_JSON,
        M_INVALID_SIGNATURE; 403 M_FORBIDDEN for the ID of a cross-signing key; 413 M_TOO_LARGE.
        """
        check_device_id(new.device_id)
        if not isinstance(new.device_data.get("algorithm"), str):
            raise invalid_param("`device_data` must have an `algorithm`.")
        row = DehydratedRow(new.device_id, _encode(new.device_data))
        upload = self._uploads.checked(
            user_id, new.device_id, new.device_keys, new.one_time_keys, new.fallback_keys
        )
        name = clipped_device_name(new.display_name)
        await self._db.write(self._put, user_id, row, name, upload)

    def _put(
        self,
        txn: Transaction,
        user_id: UserID,
        row: DehydratedRow,
        name: str | None,
        upload: Upload,
    ) -> None:
        users.lock_user(txn, user_id)
        old = dehydrated_devices.get(txn, user_id)
        device_id = row.device_id
        if old is not None:
            self._sessions.end_devices_in(txn, user_id, [old.device_id])
        if any(reserved(txn, user_id, device_id) for reserved in self._hooks.device_id_reserved):
            raise forbidden("This device ID is the ID of a cross-signing key.")
        now_ms = int(self._clock.seconds() * 1000)
        if not devices.insert_device(
            txn, DeviceRow(user_id, device_id, name, now_ms, None, None, None)
        ):
            raise invalid_param("There is another device of this ID.")
        dehydrated_devices.put(txn, user_id, row)
        self._uploads.upload_in(txn, user_id, device_id, upload)

    async def get(self, user_id: str) -> tuple[str, JsonObject]:
        """ID and `device_data` of the user's dehydrated device.

        Raises MatrixError 404 M_NOT_FOUND.
        """
        found = await self._db.read(dehydrated_devices.get, user_id)
        if found is None:
            raise not_found("There is no dehydrated device.")
        return found.device_id, json.loads(found.device_data)

    async def delete(self, user_id: str) -> str:
        """Delete the user's dehydrated device; its ID. Raises MatrixError 404 M_NOT_FOUND."""
        return await self._db.write(self._delete, user_id)

    def _delete(self, txn: Transaction, user_id: str) -> str:
        found = dehydrated_devices.get(txn, user_id)
        if found is None:
            raise not_found("There is no dehydrated device.")
        self._sessions.end_devices_in(txn, user_id, [found.device_id])
        return found.device_id

    async def events(
        self, user_id: str, device_id: str, token: str | None, limit: int
    ) -> tuple[list[JsonObject], str]:
        """Messages that wait for the device after `token`, and the token behind them.

        They stay until the device is deleted, so that another client may try as well. Raises
        MatrixError: 403 M_FORBIDDEN if this is not the user's dehydrated device, 400
        M_INVALID_PARAM for a token that is none.
        """
        after = 0 if token is None else _position(token)
        messages = await self._db.read(_messages, user_id, device_id, after, limit)
        last = messages[-1][0] if messages else after
        return [json.loads(message) for _, message in messages], f"d{last}"


def _messages(
    txn: Transaction, user_id: str, device_id: str, after: int, limit: int
) -> list[tuple[int, str]]:
    found = dehydrated_devices.get(txn, user_id)
    if found is None or found.device_id != device_id:
        raise forbidden("This is not your dehydrated device.")
    return to_device.waiting(txn, user_id, device_id, after, 2**62, max(1, min(limit, MAX_EVENTS)))


def _position(token: str) -> int:
    number = token.removeprefix("d")
    if token[:1] != "d" or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise invalid_param("This is not a token of a former answer.")
    return int(number)


def _encode(data: JsonObject) -> str:
    try:
        canonical.check(data, strict=False)
        encoded = canonical.encode_plain(data)
    except canonical.CanonicalJSONError as error:
        raise bad_json(str(error)) from None
    if len(encoded) > MAX_DATA_BYTES:
        raise too_large(f"`device_data` has at most {MAX_DATA_BYTES} bytes.")
    return encoded.decode()
