"""Messages from device to device (client-server API, "Send-to-Device messaging")."""

from __future__ import annotations

import msgspec

from homeserver.core.types import JsonObject
from homeserver.encryption.to_device import ToDevice
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint


class ToDeviceBody(msgspec.Struct, frozen=True):
    """`messages`: user IDs to device IDs, or `*` for all devices, to contents."""

    messages: dict[str, dict[str, JsonObject]]


@endpoint(
    "PUT",
    "/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}",
    auth=Auth.GUEST_OK,
    rate="message",
)
async def send_to_device(
    requester: Requester, event_type: str, txn_id: str, body: ToDeviceBody, to_device: ToDevice
) -> Empty:
    """Send messages to devices."""
    messages = body.messages
    if requester.is_shadow_banned:
        own = requester.user_id
        messages = {user_id: told for user_id, told in messages.items() if user_id == own}
    await to_device.send(requester.user_id, requester.device_id, event_type, txn_id, messages)
    return EMPTY


ENDPOINTS = [send_to_device]
