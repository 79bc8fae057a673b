"""EDUs as they are sent (Server-Server API, "EDUs"), on plain data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from federation.client.signer import encode_content
from homeserver.core import canonical
from homeserver.core.types import JsonObject
from storage.device_updates import SIGNING_KEYS, Update
from storage.outgoing import OutgoingReceipt
from storage.transaction import Transaction

Device = tuple[str, str]
"""User ID and device ID."""


class KeySource(Protocol):
    """Where the keys of local users are."""

    def device_keys(
        self, txn: Transaction, devices: Collection[Device]
    ) -> Mapping[Device, JsonObject]:
        """The identity keys of devices, with all signatures; those without keys are left out."""

    def signing_keys(self, txn: Transaction, user_ids: Collection[str]) -> Mapping[str, JsonObject]:
        """`master_key` and `self_signing_key` of users, as far as they have them."""


class Described(NamedTuple):
    """What is told of a device: its name and its identity keys."""

    display_name: str | None
    keys: JsonObject | None


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
    updates: Iterable[Update], devices: Mapping[Device, Described], before: Mapping[str, int]
) -> list[PlacedEdu]:
    """`m.device_list_update`s, one for each device: what it has become after the last change.

    Parameters: `devices` that are not there have been deleted; `before` is the `stream_id` of
    the last change of each user that was sent earlier.
    """
    last: dict[Device, Update] = {}
    for update in updates:
        if update.device_id != SIGNING_KEYS:
            last[update.user_id, update.device_id] = update
    previous = dict(before)
    found = []
    for update in sorted(last.values()):
        user_id = update.user_id
        content: JsonObject = {
            "user_id": user_id,
            "device_id": update.device_id,
            "stream_id": update.pos,
            "prev_id": [previous[user_id]] if user_id in previous else [],
        }
        device = devices.get((user_id, update.device_id))
        if device is None:
            content["deleted"] = True
        else:
            if device.display_name is not None:
                content["device_display_name"] = device.display_name
            if device.keys is not None:
                content["keys"] = device.keys
        previous[user_id] = update.pos
        body = edu("m.device_list_update", content)
        found.append(PlacedEdu(update.pos, None, user_id, body))
    return found


def signing_keys(updates: Iterable[Update], keys: Mapping[str, JsonObject]) -> list[PlacedEdu]:
    """`m.signing_key_update`s, one for each user."""
    last = {each.user_id: each.pos for each in updates if each.device_id == SIGNING_KEYS}
    return [
        PlacedEdu(
            pos, None, user_id, edu("m.signing_key_update", {"user_id": user_id, **keys[user_id]})
        )
        for user_id, pos in last.items()
        if user_id in keys
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
