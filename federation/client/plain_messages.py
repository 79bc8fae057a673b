"""An ordinary message, read in one go: `federation.client.pdus`, step 1.

What `federation.client.plain_pdus` is for the events of large states, this is for the messages
that come in transactions: parsed already, as the request's signature is over them. Nearly all
have the same few keys with values of the right types, and are encoded three times: to be stored,
hashed and signed. All others take the general path; what both say is the same.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, cast

from federation.client.plain_pdus import PlainPdu
from homeserver.core import canonical
from homeserver.core.event import Event
from homeserver.core.event_format import (
    MAX_AUTH_EVENTS,
    MAX_EVENT_BYTES,
    MAX_KEY_BYTES,
    MAX_PREV_EVENTS,
    are_plain_references,
    is_plain_room,
)
from homeserver.core.ids import UserID, domain_of
from homeserver.core.redaction import redact_content
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import encode_base64, encode_base64_urlsafe, signatures_of
from homeserver.core.types import JsonObject

_KEYS = frozenset(
    {
        *("auth_events", "content", "depth", "hashes", "origin_server_ts", "prev_events"),
        *("room_id", "sender", "signatures", "type"),
    }
)
"""What all of them have; besides these they have `unsigned`, or nothing."""
_VERSIONS = frozenset(
    version.identifier
    for version in ROOM_VERSIONS.values()
    if version.strict_canonical_json and version.redaction_keys.issuperset(_KEYS)
)


def read_message(pdu: JsonObject, version: RoomVersion, *, is_new: bool) -> PlainPdu | None:
    """What is known of a message that is sound in every respect but its signatures, which nobody
    has checked; None for what is not, or not plain: the general path tells.

    Parameters: `pdu`, a JSON object; the others as of `federation.client.pdus.PduChecker.check`.
    """
    unsigned = pdu.get("unsigned")
    has_unsigned = "unsigned" in pdu
    if has_unsigned:
        if type(unsigned) is not dict:
            return None
        pdu = {key: value for key, value in pdu.items() if key != "unsigned"}
    if version.identifier not in _VERSIONS or pdu.keys() != _KEYS:
        return None
    if not (_is_plain(pdu, version) and _names_few(pdu, is_new)):
        return None
    try:
        for value in pdu["content"].values():
            if type(value) is not str:
                # All the rest of the event is texts and integers.
                canonical.encode(pdu["content"])
                break
        text = canonical.encode_checked(pdu)
        size = len(text)
        if has_unsigned:
            # Nobody signs it and nothing of it is kept, but it must have a canonical form.
            size += len(canonical.encode({"unsigned": unsigned})) - len(b"{}") + len(b",")
    except (canonical.CanonicalJSONError, RecursionError):
        return None
    return _identified(pdu, version, text) if size <= MAX_EVENT_BYTES else None


def _identified(pdu: JsonObject, version: RoomVersion, text: bytes) -> PlainPdu | None:
    """With its ID and what is signed of it, if its content hash is right."""
    kind, content = pdu["type"], pdu["content"]
    kept: dict[str, Any] = {
        "auth_events": pdu["auth_events"],
        "content": content,
        "depth": pdu["depth"],
        "origin_server_ts": pdu["origin_server_ts"],
        "prev_events": pdu["prev_events"],
        "room_id": pdu["room_id"],
        "sender": pdu["sender"],
        "type": kind,
    }
    hashes = pdu["hashes"]
    found = hashlib.sha256(canonical.encode_checked(kept)).digest()
    if hashes["sha256"] != encode_base64(found):
        return None
    kept["hashes"] = hashes
    # Most types keep nothing.
    is_kept = kind in version.redaction_content
    kept["content"] = redact_content(kind, content, version) if is_kept else {}
    message = canonical.encode_checked(kept)
    event_id = "$" + encode_base64_urlsafe(hashlib.sha256(message).digest())
    server = domain_of(pdu["sender"])
    # Copies have no more memory than they need, as the encoder's have.
    event = Event.checked(pdu, version, event_id, bytes(memoryview(text)))
    signatures = ((server, signatures_of(pdu, server)),)
    return PlainPdu(event, bytes(memoryview(message)), signatures)


def _is_plain(pdu: JsonObject, version: RoomVersion) -> bool:
    """Whether its values are as `event_format` wants them, but for those it looks at as a whole,
    and nothing needs a closer look."""
    kind, sender, room_id, depth = pdu["type"], pdu["sender"], pdu["room_id"], pdu["depth"]
    hashes, signatures = pdu["hashes"], pdu["signatures"]
    if not (type(kind) is type(sender) is type(room_id) is str and type(depth) is int):
        return False
    if not (type(hashes) is dict and len(hashes) == 1 and type(hashes.get("sha256")) is str):
        return False
    if type(signatures) is not dict:
        return False
    for by_key in signatures.values():
        if type(by_key) is not dict:
            return False
        for signature in by_key.values():
            if type(signature) is not str:
                return False
    return (
        type(pdu["content"]) is dict
        and type(pdu["origin_server_ts"]) is int
        and 0 <= depth <= version.max_depth
        and _is_plain_kind(kind)
        and len(sender) <= MAX_KEY_BYTES
        and _is_user(sender)
        and is_plain_room(room_id, version.room_id_is_create_hash)
    )


def _names_few(pdu: JsonObject, is_new: bool) -> bool:
    """Whether the events that it names are no more than may be, and plain."""
    prev_events, auth_events = pdu["prev_events"], pdu["auth_events"]
    if type(prev_events) is not list or type(auth_events) is not list:
        return False
    if len(prev_events) > MAX_PREV_EVENTS or len(auth_events) > MAX_AUTH_EVENTS:
        # Older ones may name more.
        return not is_new and _are_names(*prev_events) and _are_names(*auth_events)
    return _are_names(*prev_events) and _are_known_names(*auth_events)


def _are_names(*names: object) -> bool:
    for name in names:
        if type(name) is not str:
            return False
    return are_plain_references(cast("tuple[str, ...]", names))


def _are_known_names(*names: object) -> bool:
    """The same of those that most events of a room name."""
    try:
        return _remember(names)
    except (TypeError, ValueError):
        return False


@lru_cache(maxsize=256)
def _remember(names: tuple[object, ...]) -> bool:
    if not _are_names(*names):
        # Nothing is remembered: these may be as long as a request.
        raise ValueError("Not plain.")
    return True


def _is_plain_kind(kind: str) -> bool:
    # Who must have signed a member event is told otherwise, be it none of the state.
    return (
        len(kind) <= MAX_KEY_BYTES
        and kind.isascii()
        and "\0" not in kind
        and kind != "m.room.member"
    )


@lru_cache(maxsize=1024)
def _is_user(text: str) -> bool:
    """Messages come many of a user at a time."""
    return text.isascii() and UserID.is_valid(text)
