"""What other servers say of keys, checked: nothing of it is believed before.

What does not have the right form, or speaks of users who were not asked for, is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from homeserver.core import canonical, key_objects
from homeserver.core.errors import MatrixError
from homeserver.core.key_objects import BadKey
from homeserver.core.types import JsonObject
from homeserver.encryption.key_reads import FoundKeys
from storage.remote_devices import RemoteDevice

MAX_DEVICES = 10_000
"""Devices of one user of another server that are listed."""
MAX_DISPLAY_NAME = 1_000
"""Characters."""


class BadDeviceList(ValueError):
    """A server's answer or message about devices cannot be used."""


class DeviceList(NamedTuple):
    """All devices of a user; cross-signing keys as JSON texts."""

    stream_id: int | None
    devices: dict[str, RemoteDevice]
    master_key: str | None
    self_signing_key: str | None


def parse_query(answer: JsonObject, wanted: Mapping[str, Sequence[str]]) -> FoundKeys:
    """The usable part of the answer to `POST /user/keys/query`."""
    found = FoundKeys()
    crossing = {"master": found.master_keys, "self_signing": found.self_signing_keys}
    for user_id, device_ids in wanted.items():
        devices = _section(answer, "device_keys").get(user_id)
        if isinstance(devices, dict):
            kept = found.device_keys[user_id] = {}
            for device_id, each in list(devices.items())[:MAX_DEVICES]:
                keys = _device_keys(each, user_id, device_id)
                if keys is not None and (not device_ids or device_id in device_ids):
                    kept[device_id] = _with_unsigned(keys)
        for usage, by_user in crossing.items():
            key = cross_signing_key(_section(answer, f"{usage}_keys").get(user_id), user_id, usage)
            if key is not None:
                by_user[user_id] = key
    return found


def parse_devices(answer: JsonObject, user_id: str) -> DeviceList:
    """The answer to `GET /user/devices/{userId}`. Raises BadDeviceList."""
    devices = answer.get("devices")
    if answer.get("user_id") != user_id or not isinstance(devices, list):
        raise BadDeviceList("The answer is not a list of this user's devices.")
    if len(devices) > MAX_DEVICES:
        raise BadDeviceList("There are too many devices.")
    found: dict[str, RemoteDevice] = {}
    for each in devices:
        if isinstance(each, dict) and key_objects.is_name(each.get("device_id")):
            device = parse_device(each, user_id)
            found[device.device_id] = device
    return DeviceList(
        stream_id(answer.get("stream_id")),
        found,
        text(cross_signing_key(answer.get("master_key"), user_id, "master")),
        text(cross_signing_key(answer.get("self_signing_key"), user_id, "self_signing")),
    )


def parse_device(each: JsonObject, user_id: str) -> RemoteDevice:
    """`device_id`, `device_display_name` and `keys` of a device; `keys` of another are none."""
    device_id = each["device_id"]
    name = each.get("device_display_name")
    keys = _device_keys(each.get("keys"), user_id, device_id)
    if keys is not None:
        keys = {field: value for field, value in keys.items() if field != "unsigned"}
    return RemoteDevice(
        device_id,
        name[:MAX_DISPLAY_NAME].replace("\0", "") if isinstance(name, str) else None,
        text(keys),
    )


def parse_claim(
    answer: JsonObject, wanted: Mapping[str, Mapping[str, Sequence[str]]]
) -> JsonObject:
    """The usable part of the answer to `POST /user/keys/claim`: users to devices to keys, of each
    algorithm at most as many as were asked for."""
    found: JsonObject = {}
    for user_id, devices in wanted.items():
        answered = _section(answer, "one_time_keys").get(user_id)
        if not isinstance(answered, dict):
            continue
        for device_id, algorithms in devices.items():
            keys = answered.get(device_id)
            if not isinstance(keys, dict):
                continue
            left = Counter(algorithms)
            for name, key in keys.items():
                algorithm = name.partition(":")[0]
                if left[algorithm] > 0 and _is_one_time_key(key):
                    left[algorithm] -= 1
                    found.setdefault(user_id, {}).setdefault(device_id, {})[name] = key
    return found


def cross_signing_key(key: Any, user_id: str, usage: str) -> JsonObject | None:
    """A cross-signing key of the right form with its owner's signatures, else None."""
    try:
        key_objects.check_cross_signing_key(key, user_id, usage)
    except BadKey:
        return None
    return key_objects.own_part(key, user_id)


def stream_id(value: Any) -> int | None:
    """A number in the stream of a user's changes, else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= canonical.MAX_INT:
        return value
    return None


def _device_keys(keys: Any, user_id: str, device_id: str) -> JsonObject | None:
    try:
        key_objects.check_device_keys(keys, user_id, device_id)
    except BadKey:
        return None
    if not key_objects.is_name(device_id):
        return None
    kept = key_objects.own_part(keys, user_id)
    if isinstance(keys.get("unsigned"), dict):
        kept["unsigned"] = keys["unsigned"]
    return kept


def _with_unsigned(keys: JsonObject) -> JsonObject:
    """Keys with no more in `unsigned` than the name of the device."""
    unsigned = keys.get("unsigned")
    name = unsigned.get("device_display_name") if isinstance(unsigned, dict) else None
    kept = {field: value for field, value in keys.items() if field != "unsigned"}
    kept["unsigned"] = (
        {"device_display_name": name[:MAX_DISPLAY_NAME]} if isinstance(name, str) else {}
    )
    return kept


def _section(answer: JsonObject, name: str) -> JsonObject:
    section = answer.get(name)
    return section if isinstance(section, dict) else {}


def _is_one_time_key(key: Any) -> bool:
    try:
        key_objects.check_one_time_keys([key])
    except MatrixError:
        return False
    return True


def text(key: JsonObject | None) -> str | None:
    """A key object as it is stored."""
    return None if key is None else canonical.encode(key).decode()
