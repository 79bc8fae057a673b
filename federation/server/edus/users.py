"""EDUs about users and their devices: `m.presence` and `m.direct_to_device`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from federation.server.edus.parsing import identifier, mapping, milliseconds, text
from homeserver.core.ids import UserID
from homeserver.core.presence import STATES
from homeserver.core.types import JsonObject
from homeserver.encryption.remote_to_device import RemoteMessages, RemoteToDevice
from homeserver.users.presence import PresenceTracker, RemotePresence

MAX_PRESENCE = 1000
"""Users whose presence one transaction tells."""
MAX_TARGETS = 5000
"""Devices that one transaction has messages for."""


class PresenceEdus:
    """Handles `m.presence` (Server-Server API, "Presence")."""

    def __init__(self, presence: PresenceTracker) -> None:
        self._presence = presence

    async def receive(self, origin: str, contents: Sequence[JsonObject]) -> None:
        """See `registry.Handler`."""
        told: list[RemotePresence] = []
        for content in contents:
            push = content.get("push")
            if isinstance(push, list):
                items = (_presence(item) for item in push[:MAX_PRESENCE])
                told += (item for item in items if item is not None)
        await self._presence.set_remote(origin, told[:MAX_PRESENCE])


def _presence(item: Any) -> RemotePresence | None:
    item = mapping(item)
    user_id = identifier(UserID.parse, item.get("user_id"))
    state: Any = item.get("presence")
    if user_id is None or state not in STATES:
        return None
    status_msg = item.get("status_msg")
    return RemotePresence(
        user_id,
        state,
        status_msg if isinstance(status_msg, str) else None,
        milliseconds(item.get("last_active_ago")),
        item.get("currently_active") is True,
    )


class ToDeviceEdus:
    """Handles `m.direct_to_device` (Server-Server API, "Send-to-device messaging")."""

    def __init__(self, to_devices: RemoteToDevice) -> None:
        self._to_devices = to_devices

    async def receive(self, origin: str, contents: Sequence[JsonObject]) -> None:
        """See `registry.Handler`."""
        told = []
        left = MAX_TARGETS
        for content in contents:
            messages = _messages(content)
            if messages is None:
                continue
            left -= sum(map(len, messages.contents.values()))
            if left < 0:
                break
            told.append(messages)
        await self._to_devices.receive(origin, told)


def _messages(content: JsonObject) -> RemoteMessages | None:
    sender = identifier(UserID.parse, content.get("sender"))
    event_type, message_id = text(content.get("type")), text(content.get("message_id"))
    if sender is None or event_type is None or message_id is None:
        return None
    contents: dict[str, dict[str, JsonObject]] = {}
    for user, devices in mapping(content.get("messages")).items():
        user_id = identifier(UserID.parse, user)
        if user_id is not None:
            contents[user_id] = {
                device_id: message
                for device_id, message in mapping(devices).items()
                if isinstance(message, dict)
            }
    return RemoteMessages(sender, event_type, message_id, contents)
