"""Receipts and read markers (Client-server API, same headings)."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.core.errors import bad_json, invalid_param
from homeserver.core.ids import EventID, RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.receipts import FULLY_READ, Receipts, Wanted
from homeserver.users.presence import PresenceTracker
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint


class ReadMarkers(msgspec.Struct, frozen=True):
    """Events to which markers are moved."""

    fully_read: EventID | None = msgspec.field(name="m.fully_read", default=None)
    read: EventID | None = msgspec.field(name="m.read", default=None)
    private: EventID | None = msgspec.field(name="m.read.private", default=None)
    allow_backward: bool = msgspec.field(name="com.beeper.allow_backward", default=False)
    """Whether the fully read marker may move to an earlier event (MSC4446)."""


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
    wanted = Wanted(receipt_type, event_id, _thread(body), _allow_backward(body, receipt_type))
    await receipts.set(requester.user_id, room_id, wanted)
    presence.active(requester.user_id)
    return EMPTY


def _allow_backward(body: JsonObject, receipt_type: str) -> bool:
    """MSC4446."""
    allowed = body.get("com.beeper.allow_backward", False)
    if not isinstance(allowed, bool):
        raise bad_json("com.beeper.allow_backward must be true or false.")
    if allowed and receipt_type != FULLY_READ:
        raise invalid_param("allow_backward is only allowed to be true for m.fully_read.")
    return allowed


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
    wanted = [
        Wanted(name, event_id, allow_backward=body.allow_backward and name == FULLY_READ)
        for name, event_id in named
        if event_id is not None
    ]
    await receipts.set(requester.user_id, room_id, *wanted)
    presence.active(requester.user_id)
    return EMPTY


ENDPOINTS = [post_receipt, post_read_markers]
