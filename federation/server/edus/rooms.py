"""EDUs about rooms: `m.typing` and `m.receipt`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from federation.server.edus.parsing import identifier, mapping, milliseconds
from homeserver.core.ids import EventID, RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.receipts import Receipts, RemoteReceipt
from homeserver.rooms.typing import RemoteTyping, Typing
from storage.receipts import MAIN, PUBLIC, UNTHREADED

MAX_RECEIPTS = 1000
"""Of one transaction."""
MAX_EVENTS = 10
"""That one receipt names."""


class TypingEdus:
    """Handles `m.typing` (Server-Server API, "Typing Notifications")."""

    def __init__(self, typing: Typing) -> None:
        self._typing = typing

    async def receive(self, origin: str, contents: Sequence[JsonObject]) -> None:
        """See `registry.Handler`."""
        changes = []
        for content in contents:
            room_id = identifier(RoomID.parse, content.get("room_id"))
            user_id = identifier(UserID.parse, content.get("user_id"))
            is_typing = content.get("typing")
            if room_id is not None and user_id is not None and isinstance(is_typing, bool):
                changes.append(RemoteTyping(room_id, user_id, is_typing))
        await self._typing.set_remote(origin, changes)


class ReceiptEdus:
    """Handles `m.receipt` (Server-Server API, "Receipts")."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    async def receive(self, origin: str, contents: Sequence[JsonObject]) -> None:
        """See `registry.Handler`."""
        told = []
        for content in contents:
            for receipt in _receipts(content):
                told.append(receipt)
                if len(told) == MAX_RECEIPTS:
                    break
        await self._receipts.set_remote(origin, told[:MAX_RECEIPTS])


def _receipts(content: JsonObject) -> Iterator[RemoteReceipt]:
    for room, by_type in content.items():
        room_id = identifier(RoomID.parse, room)
        if room_id is None:
            continue
        # Private receipts are nobody's to send.
        for user, value in mapping(mapping(by_type).get(PUBLIC)).items():
            user_id = identifier(UserID.parse, user)
            if user_id is not None and isinstance(value, dict):
                receipt = _receipt(room_id, user_id, value)
                if receipt is not None:
                    yield receipt


def _receipt(room_id: RoomID, user_id: UserID, value: JsonObject) -> RemoteReceipt | None:
    named: Any = value.get("event_ids")
    if not isinstance(named, list):
        return None
    event_ids = [identifier(EventID.parse, name) for name in named[:MAX_EVENTS]]
    data = mapping(value.get("data"))
    thread_id = _thread_id(data.get("thread_id"))
    if thread_id is None:
        return None
    return RemoteReceipt(
        room_id,
        user_id,
        tuple(event_id for event_id in event_ids if event_id is not None),
        thread_id,
        milliseconds(data.get("ts")),
    )


def _thread_id(value: Any) -> str | None:
    if value is None:
        return UNTHREADED
    return MAIN if value == MAIN else identifier(EventID.parse, value)
