"""EDUs as they are sent (Server-Server API, "EDUs"), on plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from federation.client.signer import encode_content
from homeserver.core import canonical
from homeserver.core.types import JsonObject
from storage.device_updates import SIGNING_KEYS, Update
from storage.outgoing import OutgoingReceipt

Device = tuple[str, str]
"""User ID and device ID."""


class PlacedEdu(NamedTuple):
    """An EDU made of what is at `pos` in the log, and behind it."""

    pos: int
    room_nid: int | None
    user_id: str | None
    body: bytes


def edu(edu_type: str, content: JsonObject) -> bytes:
    """An EDU; raises `CanonicalJSONError`."""
    return encode_content({"content": content, "edu_type": edu_type})


def receipts(rows: Iterable[OutgoingReceipt]) -> list[PlacedEdu]:
    """`m.receipt`s, as few as can be: one has one receipt of a user in a room."""
    open_: dict[int, tuple[int, str, dict[str, Any]]] = {}
    found = []

    def close(room_nid: int) -> None:
        pos, room_id, users = open_.pop(room_nid)
        body = edu("m.receipt", {room_id: {"m.read": users}})
        found.append(PlacedEdu(pos, room_nid, None, body))

    for row in rows:
        if row.room_nid in open_ and row.user_id in open_[row.room_nid][2]:
            close(row.room_nid)
        data: JsonObject = {"ts": row.ts}
        if row.thread_id:
            data["thread_id"] = row.thread_id
        _, _, users = open_.setdefault(row.room_nid, (row.pos, row.room_id, {}))
        users[row.user_id] = {"event_ids": [row.event_id], "data": data}
    for room_nid in list(open_):
        close(room_nid)
    return found


def device_lists(
    updates: Iterable[Update], devices: Mapping[Device, JsonObject], before: Mapping[str, int]
) -> list[PlacedEdu]:
    """`m.device_list_update`s, one for each device: what it has become after the last change.

    Parameters: `devices` has the contents besides the stream; `before` is the `stream_id` of the
    last change of each user that was sent earlier.
    """
    last: dict[Device, Update] = {}
    for update in updates:
        if update.device_id != SIGNING_KEYS:
            last[update.user_id, update.device_id] = update
    previous = dict(before)
    found = []
    for update in sorted(last.values()):
        user_id = update.user_id
        content = devices[user_id, update.device_id] | {
            "stream_id": update.pos,
            "prev_id": [previous[user_id]] if user_id in previous else [],
        }
        previous[user_id] = update.pos
        body = edu("m.device_list_update", content)
        found.append(PlacedEdu(update.pos, None, user_id, body))
    return found


def signing_keys(updates: Iterable[Update], contents: Mapping[str, JsonObject]) -> list[PlacedEdu]:
    """`m.signing_key_update`s, one for each user that `contents` has."""
    last = {each.user_id: each.pos for each in updates if each.device_id == SIGNING_KEYS}
    return [
        PlacedEdu(pos, None, user_id, edu("m.signing_key_update", contents[user_id]))
        for user_id, pos in last.items()
        if user_id in contents
    ]


def to_device(content: str) -> bytes:
    """An `m.direct_to_device`, from the JSON text of its content."""
    return edu("m.direct_to_device", canonical.parse_object(content))


def typing(room_id: str, user_id: str, is_typing: bool) -> bytes:
    """An `m.typing`."""
    return edu("m.typing", {"room_id": room_id, "user_id": user_id, "typing": is_typing})


def presence_update(user_id: str, content: JsonObject) -> bytes:
    """One update within an `m.presence`."""
    return encode_content({"last_active_ago": 0, **content, "user_id": user_id})


def presence(updates: Iterable[bytes]) -> bytes:
    """An `m.presence` of several updates."""
    return b'{"content":{"push":[' + b",".join(updates) + b']},"edu_type":"m.presence"}'
