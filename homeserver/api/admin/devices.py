"""Users' devices (Synapse's "User devices")."""

from __future__ import annotations

import msgspec

from homeserver.api.admin import audit
from homeserver.core.ids import UserID
from homeserver.users.administration import AccountAdministration
from homeserver.users.devices import Devices
from homeserver.users.sessions import Sessions
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, Response, endpoint
from storage.devices import DeviceRow

_DEVICES = "/_synapse/admin/v2/users/{user_id}/devices"
_DEVICE = f"{_DEVICES}/{{device_id}}"


class Device(msgspec.Struct):
    user_id: str
    device_id: str
    display_name: str | None
    last_seen_user_agent: str | None
    last_seen_ts: int | None
    last_seen_ip: str | None
    dehydrated: bool


class DevicesAnswer(msgspec.Struct):
    devices: list[Device]
    total: int


class NewDevice(msgspec.Struct, frozen=True):
    device_id: str


class DeviceName(msgspec.Struct, frozen=True):
    display_name: str | None = None


class DeviceIds(msgspec.Struct, frozen=True):
    devices: list[str]


def _device(row: DeviceRow, dehydrated: str | None) -> Device:
    return Device(
        row.user_id,
        row.device_id,
        row.display_name,
        row.last_seen_user_agent or None,
        row.last_seen_ts,
        row.last_seen_ip or None,
        row.device_id == dehydrated,
    )


@endpoint("GET", _DEVICES, auth=Auth.ADMIN, rate="read")
async def get_devices(
    user_id: UserID, administration: AccountAdministration, devices: Devices
) -> DevicesAnswer:
    """All devices of a user."""
    await administration.known(user_id)
    dehydrated = await devices.dehydrated(user_id)
    found = [_device(row, dehydrated) for row in await devices.of_user(user_id)]
    return DevicesAnswer(found, len(found))


@endpoint("POST", _DEVICES, auth=Auth.ADMIN, rate="write", returns=Empty)
async def create_device(
    requester: Requester,
    user_id: UserID,
    body: NewDevice,
    administration: AccountAdministration,
    sessions: Sessions,
) -> Response:
    """Make a device that nobody is logged in on; nothing if there is one of this ID."""
    await administration.known(user_id)
    if await sessions.add_device(user_id, body.device_id):
        audit.record(requester, "create_device", user_id, device=body.device_id)
    return Response(201, {})


@endpoint("GET", _DEVICE, auth=Auth.ADMIN, rate="read")
async def get_device(
    user_id: UserID, device_id: str, administration: AccountAdministration, devices: Devices
) -> Device:
    """One device of a user."""
    await administration.known(user_id)
    return _device(await devices.get(user_id, device_id), await devices.dehydrated(user_id))


@endpoint("PUT", _DEVICE, auth=Auth.ADMIN, rate="write", optional_body=True)
async def put_device(
    requester: Requester,
    user_id: UserID,
    device_id: str,
    body: DeviceName,
    administration: AccountAdministration,
    devices: Devices,
) -> Empty:
    """Name a device."""
    await administration.known(user_id)
    if body.display_name is None:
        await devices.get(user_id, device_id)
    else:
        await devices.rename(user_id, device_id, body.display_name)
        audit.record(requester, "rename_device", user_id, device=device_id)
    return EMPTY


@endpoint("DELETE", _DEVICE, auth=Auth.ADMIN, rate="write")
async def delete_device(
    requester: Requester,
    user_id: UserID,
    device_id: str,
    administration: AccountAdministration,
    devices: Devices,
) -> Empty:
    """Delete a device, and its session; nothing if there is none."""
    await administration.known(user_id)
    await devices.delete(user_id, [device_id])
    audit.record(requester, "delete_devices", user_id, devices=[device_id])
    return EMPTY


@endpoint(
    "POST", "/_synapse/admin/v2/users/{user_id}/delete_devices", auth=Auth.ADMIN, rate="write"
)
async def delete_devices(
    requester: Requester,
    user_id: UserID,
    body: DeviceIds,
    administration: AccountAdministration,
    devices: Devices,
) -> Empty:
    """Delete devices, and their sessions."""
    await administration.known(user_id)
    await devices.delete(user_id, body.devices)
    audit.record(requester, "delete_devices", user_id, devices=body.devices)
    return EMPTY


ENDPOINTS = [
    get_devices,
    create_device,
    get_device,
    put_device,
    delete_device,
    delete_devices,
]
