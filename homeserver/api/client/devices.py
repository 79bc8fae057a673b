"""A user's devices (Client-server API, "Device Management")."""

from __future__ import annotations

import msgspec

from homeserver.api.client.login import AuthBody
from homeserver.core.types import JsonObject
from homeserver.users.devices import Devices
from homeserver.users.sessions import Sessions
from homeserver.users.uia import InteractiveAuth, Operation
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Requester, Response, endpoint
from storage.devices import DeviceRow


class Device(msgspec.Struct, omit_defaults=True):
    device_id: str
    display_name: str | None = None
    last_seen_ip: str | None = None
    last_seen_ts: int | None = None


class DevicesAnswer(msgspec.Struct):
    devices: list[Device]


class DeviceBody(msgspec.Struct):
    display_name: str | None = None


class DeleteDevicesBody(msgspec.Struct):
    devices: list[str]
    auth: JsonObject | None = None


def _device(row: DeviceRow) -> Device:
    return Device(row.device_id, row.display_name, row.last_seen_ip or None, row.last_seen_ts)


@endpoint("GET", "/_matrix/client/v3/devices", auth=Auth.GUEST_OK, rate="read")
async def get_devices(requester: Requester, devices: Devices) -> DevicesAnswer:
    """All devices of the requester."""
    return DevicesAnswer([_device(row) for row in await devices.of_user(requester.user_id)])


@endpoint("GET", "/_matrix/client/v3/devices/{device_id}", auth=Auth.GUEST_OK, rate="read")
async def get_device(requester: Requester, device_id: str, devices: Devices) -> Device:
    """One device of the requester."""
    return _device(await devices.get(requester.user_id, device_id))


@endpoint("PUT", "/_matrix/client/v3/devices/{device_id}", auth=Auth.GUEST_OK, rate="write")
async def put_device(
    requester: Requester,
    device_id: str,
    body: DeviceBody,
    devices: Devices,
    sessions: Sessions,
) -> Empty | Response:
    """Name a device of the requester. Application services make it where there is none."""
    if requester.appservice_id is not None:
        is_new = await sessions.add_device(requester.user_id, device_id)
        if body.display_name is not None:
            await devices.rename(requester.user_id, device_id, body.display_name)
        return Response(201, {}) if is_new else EMPTY
    if body.display_name is None:
        await devices.get(requester.user_id, device_id)
    else:
        await devices.rename(requester.user_id, device_id, body.display_name)
    return EMPTY


@endpoint(
    "DELETE",
    "/_matrix/client/v3/devices/{device_id}",
    auth=Auth.ACCESS_TOKEN,
    rate="login",
    optional_body=True,
)
async def delete_device(
    requester: Requester,
    device_id: str,
    body: AuthBody,
    request: Request,
    uia: InteractiveAuth,
    devices: Devices,
) -> Empty:
    """Delete a device of the requester, and its session."""
    await uia.confirm_owner(Operation(request, requester, body.auth, {}), trust_appservices=True)
    await devices.delete(requester.user_id, [device_id])
    return EMPTY


@endpoint("POST", "/_matrix/client/v3/delete_devices", auth=Auth.ACCESS_TOKEN, rate="login")
async def delete_devices(
    requester: Requester,
    body: DeleteDevicesBody,
    request: Request,
    uia: InteractiveAuth,
    devices: Devices,
) -> Empty:
    """Delete devices of the requester, and their sessions."""
    operation = Operation(request, requester, body.auth, {"devices": sorted(body.devices)})
    await uia.confirm_owner(operation, trust_appservices=True)
    await devices.delete(requester.user_id, body.devices)
    return EMPTY


ENDPOINTS = [get_devices, get_device, put_device, delete_device, delete_devices]
