"""Receipts and read markers (Client-server API, same headings)."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.core.errors import invalid_param
from homeserver.core.ids import EventID, RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.receipts import Receipts, Wanted
from homeserver.users.presence import PresenceTracker
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint


class ReadMarkers(msgspec.Struct, frozen=True):
    """Events to which markers are moved."""

    fully_read: EventID | None = msgspec.field(name="m.fully_read", default=None)
    read: EventID | None = msgspec.field(name="m.read", default=None)
    private: EventID | None = msgspec.field(name="m.read.private", default=None)


@endpoint(
    "POST",
    "/_matrix/client/v3/rooms/{room_id}/receipt/{receipt_type}/{event_id}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    optional_body=True,
    lenient_json=True,
)
async def post_receipt(
    requester: Requester,
    room_id: RoomID,
    receipt_type: str,
    event_id: EventID,
    body: JsonObject,
    receipts: Receipts,
    presence: PresenceTracker,
) -> Empty:
    """Set a receipt, or the fully read marker."""
    wanted = Wanted(receipt_type, event_id, _thread(body))
    await receipts.set(requester.user_id, room_id, wanted)
    presence.active(requester.user_id)
    return EMPTY


def _thread(body: JsonObject) -> str:
    if "thread_id" not in body:
        return ""
    thread_id: Any = body["thread_id"]
    if not isinstance(thread_id, str) or not thread_id or "\0" in thread_id:
        raise invalid_param("thread_id must be a string that is not empty.")
    return thread_id


@endpoint(
    "POST",
    "/_matrix/client/v3/rooms/{room_id}/read_markers",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    optional_body=True,
)
async def post_read_markers(
    requester: Requester,
    room_id: RoomID,
    body: ReadMarkers,
    receipts: Receipts,
    presence: PresenceTracker,
) -> Empty:
    """Move the fully read marker, and set receipts."""
    named = (
        ("m.fully_read", body.fully_read),
        ("m.read", body.read),
        ("m.read.private", body.private),
    )
    wanted = [Wanted(name, event_id) for name, event_id in named if event_id is not None]
    await receipts.set(requester.user_id, room_id, *wanted)
    presence.active(requester.user_id)
    return EMPTY


ENDPOINTS = [post_receipt, post_read_markers]
