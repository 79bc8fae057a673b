"""What one push says (push gateway API, `POST /_matrix/push/v1/notify`).

It is put together when it is sent, not when the event came: what was read, redacted or left
meanwhile is told to nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from homeserver.core import pushers as kinds
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.badges import Badge
from homeserver.rooms.room_names import invited_room_name, member_name, room_alias, room_name
from homeserver.rooms.view import RoomView
from storage import account_data, events, memberships, notified, rooms, unread
from storage.events import ACCEPTED, EventRow
from storage.memberships import MembershipRow
from storage.push_queue import Waiting
from storage.pushers import PusherRow
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

MAX_NAME = 200
"""Of rooms and people, in characters."""


class NotTold(NamedTuple):
    """Why a user is not told of an event any more."""

    reason: str


class ToTell(NamedTuple):
    """An event as its reader may see it."""

    room: RoomRow
    row: EventRow
    event: Event
    member: MembershipRow


def look_up(
    txn: Transaction, states: StateStore, user_id: str, waiting: Waiting
) -> ToTell | NotTold:
    """The event that a user is to be told of, if that is still so."""
    row = events.get_by_nids(txn, [waiting.event_nid]).get(waiting.event_nid)
    room = rooms.get_many(txn, [waiting.room_nid]).get(waiting.room_nid)
    if row is None or room is None:
        return NotTold("the event is gone")
    if row.redacted_by is not None:
        return NotTold("redacted")
    member = memberships.get(txn, waiting.room_nid, user_id)
    if member is not None and member.membership == "invite":
        if member.event_nid != row.event_nid:
            return NotTold("not visible to the user")
        event = Event.from_json(row.json, ROOM_VERSIONS[room.version], row.event_id)
    elif member is not None and member.membership == "join" and row.pos is not None:
        if row.status != ACCEPTED:
            return NotTold("not visible to the user")
        if member.pos > row.pos and _joined_later(txn, user_id, row):
            return NotTold("the user joined after it")
        seen = RoomView(txn, states, room, user_id).visible([row])
        if not seen:
            return NotTold("not visible to the user")
        event = seen[0].event
        if unread.is_read(txn, row, user_id):
            return NotTold("read before it was sent")
    else:
        return NotTold("the user is not in the room any more")
    if row.sender in account_data.ignored_users(txn, user_id):
        return NotTold("the sender is ignored")
    return ToTell(room, row, event, member)


def _joined_later(txn: Transaction, user_id: str, row: EventRow) -> bool:
    return (notified.joined_since(txn, row.room_nid, user_id) or 0) > (row.pos or 0)


def notification(
    txn: Transaction,
    pusher: PusherRow,
    told: ToTell,
    tweaks: Mapping[str, Any],
    badge: Badge,
    *,
    with_content: bool,
) -> JsonObject:
    """The body of a push about an event."""
    settings = pusher.settings
    event = told.event
    found: JsonObject = {
        "event_id": event.event_id,
        "room_id": told.room.room_id,
        "prio": _priority(event, tweaks),
        "counts": counts(badge),
        "devices": [_device(pusher)],
    }
    if not with_content or settings.get("format") == kinds.EVENT_ID_ONLY:
        return {"notification": found}
    found["devices"] = [{**_device(pusher), "tweaks": dict(tweaks)}]
    found |= {"type": event.type, "sender": event.sender, "content": event.content}
    found["sender_display_name"] = _short(_sender_name(txn, told))
    name = _room_name(txn, told)
    if name:
        found["room_name"] = _short(name)
    alias = room_alias(txn, told.room.room_nid)
    if alias:
        found["room_alias"] = alias
    if event.type == "m.room.member":
        found["user_is_target"] = event.state_key == pusher.user_id
    return {"notification": found}


def badge_update(pusher: PusherRow, badge: Badge) -> JsonObject:
    """The body of a push that only says how much is unread."""
    found = {"prio": "low", "counts": counts(badge), "devices": [_device(pusher)]}
    return {"notification": found}


def counts(badge: Badge) -> JsonObject:
    """Counts; those that are zero are left out, but for the one without which no gateway would
    clear a badge."""
    found: JsonObject = {"unread": badge.unread}
    if badge.missed_calls:
        found["missed_calls"] = badge.missed_calls
    return found


def _device(pusher: PusherRow) -> JsonObject:
    # Gateways that pass on to browsers need the secret; a browser that is told directly has it.
    hidden = ("url", "auth") if pusher.kind == kinds.WEBPUSH else ("url",)
    data = {key: value for key, value in pusher.settings.items() if key not in hidden}
    return {
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.set_ts // 1000,
        "data": data,
    }


def _priority(event: Event, tweaks: Mapping[str, Any]) -> str:
    """High for what should be heard, and for what only the device can judge."""
    loud = event.type == "m.room.encrypted" or tweaks.get("highlight") or tweaks.get("sound")
    return "high" if loud else "low"


def _room_name(txn: Transaction, told: ToTell) -> str | None:
    if told.member.membership == "invite":
        return invited_room_name(told.member)
    return room_name(txn, told.room.room_nid, told.member.user_id)


def _sender_name(txn: Transaction, told: ToTell) -> str:
    sender = told.event.sender
    if told.member.membership == "invite":
        for entry in json.loads(told.member.stripped_state or "[]"):
            if entry.get("type") == "m.room.member" and entry.get("state_key") == sender:
                content = entry.get("content")
                name = content.get("displayname") if isinstance(content, dict) else None
                return name if isinstance(name, str) and name else sender
    return member_name(txn, told.room.room_nid, sender)


def _short(text: str) -> str:
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
