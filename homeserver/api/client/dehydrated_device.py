"""Dehydrated devices (MSC3814)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from homeserver.core.types import JsonObject
from homeserver.encryption.dehydrated_devices import MAX_EVENTS, DehydratedDevices, NewDevice
from homeserver.web.endpoint import Auth, Requester, endpoint

_PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"

Limit = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class DeviceBody(msgspec.Struct, frozen=True):
    device_id: str
    device_data: JsonObject
    device_keys: JsonObject
    initial_device_display_name: str | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None


class DeviceIdAnswer(msgspec.Struct):
    device_id: str


class DeviceAnswer(msgspec.Struct):
    device_id: str
    device_data: JsonObject


class EventsQuery(msgspec.Struct, frozen=True):
    """`next_batch` of a former answer; `from` says the same."""

    next_batch: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    limit: Limit = MAX_EVENTS


class EventsBody(msgspec.Struct, frozen=True):
    next_batch: str | None = None


class LimitQuery(msgspec.Struct, frozen=True):
    limit: Limit = MAX_EVENTS


class EventsAnswer(msgspec.Struct):
    events: list[JsonObject]
    next_batch: str


@endpoint("PUT", _PATH, auth=Auth.ACCESS_TOKEN, rate="write", strict_json=True)
async def put_dehydrated_device(
    requester: Requester, body: DeviceBody, devices: DehydratedDevices
) -> DeviceIdAnswer:
    """Set the requester's dehydrated device."""
    await devices.put(
        requester.user_id,
        NewDevice(
            body.device_id,
            body.initial_device_display_name,
            body.device_data,
            body.device_keys,
            body.one_time_keys or {},
            body.fallback_keys or {},
        ),
    )
    return DeviceIdAnswer(body.device_id)


@endpoint("GET", _PATH, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_dehydrated_device(requester: Requester, devices: DehydratedDevices) -> DeviceAnswer:
    """The requester's dehydrated device."""
    return DeviceAnswer(*await devices.get(requester.user_id))


@endpoint("DELETE", _PATH, auth=Auth.ACCESS_TOKEN, rate="write")
async def delete_dehydrated_device(
    requester: Requester, devices: DehydratedDevices
) -> DeviceIdAnswer:
    """Delete the requester's dehydrated device."""
    return DeviceIdAnswer(await devices.delete(requester.user_id))


@endpoint("GET", f"{_PATH}/{{device_id}}/events", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_dehydrated_events(
    requester: Requester, device_id: str, query: EventsQuery, devices: DehydratedDevices
) -> EventsAnswer:
    """Messages that wait for the dehydrated device."""
    token = query.next_batch or query.from_
    return EventsAnswer(*await devices.events(requester.user_id, device_id, token, query.limit))


@endpoint(
    "POST",
    f"{_PATH}/{{device_id}}/events",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    optional_body=True,
)
async def post_dehydrated_events(
    requester: Requester,
    device_id: str,
    query: LimitQuery,
    body: EventsBody,
    devices: DehydratedDevices,
) -> EventsAnswer:
    """Messages that wait for the dehydrated device, as clients ask for them so far."""
    token = body.next_batch or None
    return EventsAnswer(*await devices.events(requester.user_id, device_id, token, query.limit))


ENDPOINTS = [
    put_dehydrated_device,
    get_dehydrated_device,
    delete_dehydrated_device,
    get_dehydrated_events,
    post_dehydrated_events,
]
