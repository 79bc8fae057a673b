"""May this be an event at all? Shape and size of events in federation form.

Rules: Room Versions, "Event format" of each version; Client-Server API, "Size limits";
Server-Server API, "Checks performed on receipt of a PDU", step 1. An event that fails is
dropped, as if it had never come.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from homeserver.core import canonical
from homeserver.core.ids import MAX_ID_BYTES, EventID, InvalidIdentifier, RoomID, UserID
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject

MAX_EVENT_BYTES = 65536
MAX_KEY_BYTES = MAX_ID_BYTES
MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10

_LIMITED_KEYS = ("type", "state_key", "sender", "room_id", "event_id")
_INT64 = range(-(2**63), 2**63)
_PLAIN_EVENT_ID = re.compile(r"\$[\x01-\x7f]{1,254}").fullmatch
"""What nearly all event IDs are like; `EventID.parse` takes all of these, and others."""


class EventFormatError(ValueError):
    """A received event breaks the format of its room version."""


class EventTooLarge(ValueError):
    """An event, or one of its keys, is larger than permitted."""


def check_pdu(
    pdu: Any, version: RoomVersion, *, is_new: bool = True, encoded: bytes | None = None
) -> bytes | None:
    """Raise `EventFormatError` unless `pdu` has the format of events of this version.

    Returns its canonical JSON, which is made on the way, from version 6 on.

    Parameters: `is_new`, whether it may name no more than so many predecessors and auth events:
    rooms hold older events that name more; `encoded`, its canonical JSON, if at hand.

    Sizes are for `check_sizes`. Whether a create event of version 12 may carry a `room_id` is
    for the authorisation rules.
    """
    if not isinstance(pdu, dict):
        raise EventFormatError("An event is a JSON object.")
    if encoded is None:
        encoded = _check_json(pdu, version)
    _check_plain_keys(pdu, version)
    _check_ids(pdu, version)
    _check_proofs(pdu)
    prev_limit = MAX_PREV_EVENTS if is_new else MAX_EVENT_BYTES
    auth_limit = MAX_AUTH_EVENTS if is_new else MAX_EVENT_BYTES
    check_references(pdu.get("prev_events"), "prev_events", prev_limit, version)
    check_references(pdu.get("auth_events"), "auth_events", auth_limit, version)
    return encoded


def check_sizes(
    pdu: JsonObject, *, in_characters: bool = False, encoded: bytes | None = None
) -> None:
    """Raise `EventTooLarge` if the event or one of its limited keys is too large.

    Client-Server API, "Size limits". With `in_characters` keys may hold 255 characters rather
    than 255 bytes; `encoded` is its canonical JSON, if at hand. Raises `CanonicalJSONError` if the
    event cannot be encoded at all.
    """
    for key in _LIMITED_KEYS:
        value = pdu.get(key)
        if isinstance(value, str):
            size = len(value) if in_characters or value.isascii() else len(value.encode())
            if size > MAX_KEY_BYTES:
                raise EventTooLarge(f"{key!r} is larger than {MAX_KEY_BYTES} bytes.")
    if encoded is None:
        try:
            encoded = canonical.encode(pdu)
        except canonical.CanonicalJSONError:
            encoded = canonical.encode_lenient(pdu)
    if len(encoded) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"The event is larger than {MAX_EVENT_BYTES} bytes.")


def check_received_sizes(
    pdu: JsonObject, version: RoomVersion, encoded: bytes | None = None
) -> None:
    """`check_sizes` for events of other servers.

    Up to version 10 keys were long counted in characters, and rooms hold such events.
    """
    check_sizes(pdu, in_characters=not version.key_sizes_in_bytes, encoded=encoded)


def check_references(value: Any, name: str, limit: int, version: RoomVersion) -> None:
    """Raise `EventFormatError` unless `value` is a list of references to at most `limit` events.

    A reference is an event ID, or a pair of event ID and hashes in versions 1 and 2.
    """
    if not isinstance(value, list):
        raise EventFormatError(f"{name!r} is not a list.")
    if len(value) > limit:
        raise EventFormatError(f"{name!r} names more than {limit} events.")
    for entry in value:
        if type(entry) is str and version.event_format != 1 and _PLAIN_EVENT_ID(entry):
            continue
        event_id = entry
        if version.event_format == 1:
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict)):
                raise EventFormatError(f"An entry of {name!r} is not a pair of ID and hashes.")
            event_id = entry[0]
        if not isinstance(event_id, str):
            raise EventFormatError(f"An entry of {name!r} is not an event ID.")
        _parse(EventID, event_id, name)


def are_plain_references(names: Iterable[str]) -> bool:
    """Whether these are surely event IDs that may be referred to, from room version 3 on."""
    return all(map(_PLAIN_EVENT_ID, names))


def is_plain_room(room_id: str, is_create_hash: bool) -> bool:
    """Whether this is a room ID of the form that a room version wants: see `RoomVersion`."""
    if len(room_id) > MAX_ID_BYTES:
        return False
    try:
        return _room_has_domain(room_id) is not is_create_hash
    except EventFormatError:
        return False


def next_depth(prev_depths: Iterable[int], version: RoomVersion) -> int:
    """The `depth` of a new event: one more than the deepest predecessor, within the limit."""
    return min(max(prev_depths, default=0) + 1, version.max_depth)


def choose_prev_events(extremities: Mapping[str, int]) -> list[str]:
    """The `prev_events` of a new event: the forward extremities (event ID → depth).

    If there are more than 20, the deepest; the next event takes up the others, because this one
    replaces those that it names.
    """
    deepest_first = sorted(extremities, key=lambda event_id: (-extremities[event_id], event_id))
    return deepest_first[:MAX_PREV_EVENTS]


def _check_json(pdu: JsonObject, version: RoomVersion) -> bytes | None:
    try:
        if version.strict_canonical_json:
            return canonical.encode(pdu)
        canonical.check(pdu, strict=False)
        return None
    except canonical.CanonicalJSONError as exc:
        raise EventFormatError(str(exc)) from None


def _check_plain_keys(pdu: JsonObject, version: RoomVersion) -> None:
    if not isinstance(pdu.get("content"), dict):
        raise EventFormatError("'content' is not an object.")
    for key in ("type", "state_key"):
        value = pdu.get(key)
        if not isinstance(value, str) and (key == "type" or key in pdu):
            raise EventFormatError(f"{key!r} is not a string.")
        # Not in the specification, but no server on PostgreSQL can hold such a text.
        if value is not None and "\x00" in value:
            raise EventFormatError(f"{key!r} holds a NUL.")
    if not version.redacts_in_content and not isinstance(pdu.get("redacts", ""), str):
        raise EventFormatError("'redacts' is not a string.")
    if not isinstance(pdu.get("unsigned", {}), dict):
        raise EventFormatError("'unsigned' is not an object.")
    depth = _integer(pdu, "depth")
    if not 0 <= depth <= version.max_depth:
        raise EventFormatError("'depth' is out of range.")
    if _integer(pdu, "origin_server_ts") not in _INT64:
        raise EventFormatError("'origin_server_ts' is out of range.")


def _check_ids(pdu: JsonObject, version: RoomVersion) -> None:
    sender = pdu.get("sender")
    if type(sender) is not str or not UserID.is_valid(sender):
        _parse(UserID, sender, "sender")
    if version.event_format == 1:
        event_id = _parse(EventID, pdu.get("event_id"), "event_id")
        if ":" not in event_id:
            raise EventFormatError("'event_id' has no domain.")
    is_create = pdu["type"] == "m.room.create" and pdu.get("state_key") == ""
    if version.room_id_is_create_hash and is_create and "room_id" not in pdu:
        return
    room_id = pdu.get("room_id")
    if isinstance(room_id, str) and len(room_id) <= MAX_ID_BYTES:
        has_domain = _room_has_domain(room_id)
    else:
        has_domain = _parse(RoomID, room_id, "room_id").legacy_domain is not None
    if version.room_id_is_create_hash == has_domain:
        raise EventFormatError("'room_id' is not of the form of this room version.")


@lru_cache(maxsize=1024)
def _room_has_domain(room_id: str) -> bool:
    # Events come many of a room at a time.
    return _parse(RoomID, room_id, "room_id").legacy_domain is not None


def _check_proofs(pdu: JsonObject) -> None:
    """`hashes` and `signatures`: their shape only."""
    hashes = pdu.get("hashes")
    if not isinstance(hashes, dict) or not isinstance(hashes.get("sha256"), str):
        raise EventFormatError("'hashes' is not an object with a 'sha256'.")
    signatures = pdu.get("signatures")
    if not isinstance(signatures, dict) or not all(map(_holds_strings, signatures.values())):
        raise EventFormatError("'signatures' is not an object of objects of strings.")


def _holds_strings(by_server: Any) -> bool:
    if not isinstance(by_server, dict):
        return False
    for one in by_server.values():  # noqa: SIM110 - a generator takes longer than this
        if not isinstance(one, str):
            return False
    return True


def _integer(pdu: JsonObject, key: str) -> int:
    value = pdu.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise EventFormatError(f"{key!r} is not an integer.")
    return value


def _parse(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, str):
        raise EventFormatError(f"{name!r} is not a string.")
    try:
        return kind.parse(value)
    except InvalidIdentifier as exc:
        raise EventFormatError(f"{name!r}: {exc}") from None
