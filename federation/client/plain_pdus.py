"""The text of an ordinary state event, read in one go: `federation.client.pdus`, step 1.

Of the events of a large state nearly all have the same few keys, with values of the types that the
room versions want. These are checked while they are parsed, and what is signed and hashed of them
is put together from their values. All others take the general path, which takes three times as
long; what both say is the same.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from federation.client.keyring import Signatures
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

_MEMBER = "m.room.member"
_SIGNED_OTHERWISE = ("third_party_invite", "join_authorised_via_users_server")
"""Keys of a member event's content by which others sign than the sender's server."""


class PlainPdu(NamedTuple):
    """What `federation.client.pdus` knows of a PDU after step 1."""

    event: Event
    message: bytes
    signatures: Signatures


class _Text(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The keys that all of them have; two that others may send besides; and no others."""

    auth_events: tuple[str, ...]
    content: dict[str, Any]
    depth: int
    hashes: dict[str, str]
    origin_server_ts: int
    prev_events: tuple[str, ...]
    room_id: str
    sender: str
    signatures: dict[str, dict[str, str]]
    state_key: str
    type: str
    origin: str | msgspec.UnsetType = msgspec.UNSET
    unsigned: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


_SIGNED = frozenset(_Text.__struct_fields__) - {"origin", "unsigned"}
_VERSIONS = frozenset(
    version.identifier
    for version in ROOM_VERSIONS.values()
    if version.strict_canonical_json and version.redaction_keys.issuperset(_SIGNED)
)


def _refuse_float(text: str) -> None:
    raise ValueError("A float.")


_DECODER = msgspec.json.Decoder(_Text, float_hook=_refuse_float)


def read_plain(
    text: bytes, version: RoomVersion, room_id: str | None, *, is_new: bool
) -> PlainPdu | None:
    """Read an event that is sound in every respect but its signatures, which nobody has checked;
    None for one that is not, or not plain: the general path tells.

    Parameters: as of `federation.client.pdus.PduChecker.check`.
    """
    # Its canonical form is not larger.
    if len(text) > MAX_EVENT_BYTES or version.identifier not in _VERSIONS:
        return None
    try:
        read = _DECODER.decode(text)
        return _checked(read, version, room_id, is_new)
    except (msgspec.MsgspecError, canonical.CanonicalJSONError, ValueError, RecursionError):
        return None


def _checked(
    read: _Text, version: RoomVersion, room_id: str | None, is_new: bool
) -> PlainPdu | None:
    if (read.room_id != room_id and room_id is not None) or not _is_plain(read, version, is_new):
        return None
    kind, content, auth_events = read.type, read.content, read.auth_events
    if len(auth_events) <= MAX_AUTH_EVENTS:
        auth_events = _shared(auth_events)
    elif not are_plain_references(auth_events):
        return None
    # What a redaction keeps is signed, with the hash of the rest; a hash is over all but itself.
    kept: JsonObject = {
        "auth_events": auth_events,
        "content": content,
        "depth": read.depth,
        "origin_server_ts": read.origin_server_ts,
        "prev_events": read.prev_events,
        "room_id": read.room_id,
        "sender": read.sender,
        "state_key": read.state_key,
        "type": kind,
    }
    if read.origin is not msgspec.UNSET:
        kept["origin"] = read.origin
    if read.unsigned:
        # Nobody signs it and nothing of it is kept, but it must have a canonical form.
        canonical.encode_checked({"unsigned": read.unsigned})
    # Integers that are too large are found here; there is nothing else to find.
    hashed = canonical.encode_checked(kept)
    if read.hashes["sha256"] != encode_base64(hashlib.sha256(hashed).digest()):
        return None
    kept["hashes"] = read.hashes
    kept["signatures"] = read.signatures
    encoded = canonical.encode_checked(kept)
    del kept["signatures"]
    kept["content"] = redact_content(kind, content, version)
    if "origin" not in version.redaction_keys:
        kept.pop("origin", None)
    message = canonical.encode_checked(kept)
    event_id = "$" + encode_base64_urlsafe(hashlib.sha256(message).digest())
    event = Event.of_state(
        event_id,
        version,
        # A copy has no more memory than it needs, as the encoder's has.
        bytes(memoryview(encoded)),
        kind=kind,
        state_key=read.state_key,
        sender=read.sender,
        content=content,
        auth_event_ids=auth_events,
        prev_event_ids=read.prev_events,
        depth=read.depth,
        origin_server_ts=read.origin_server_ts,
        room_id=read.room_id,
    )
    server = domain_of(read.sender)
    by_key = signatures_of({"signatures": read.signatures}, server)
    return PlainPdu(event, bytes(memoryview(message)), ((server, by_key),))


def _is_plain(read: _Text, version: RoomVersion, is_new: bool) -> bool:
    """Whether all is as `event_format` wants it, and nothing needs a closer look."""
    kind, state_key = read.type, read.state_key
    if kind == _MEMBER:
        for key in _SIGNED_OTHERWISE:
            if key in read.content:
                return False
    elif kind == "m.room.create":
        return False
    limits = (MAX_PREV_EVENTS, MAX_AUTH_EVENTS) if is_new else (MAX_EVENT_BYTES, MAX_EVENT_BYTES)
    return (
        "sha256" in read.hashes
        and 0 <= read.depth <= version.max_depth
        and "\0" not in kind
        and "\0" not in state_key
        and kind.isascii()
        and len(kind) <= MAX_KEY_BYTES
        and state_key.isascii()
        and len(state_key) <= MAX_KEY_BYTES
        and read.sender.isascii()
        and UserID.is_valid(read.sender)
        and is_plain_room(read.room_id, version.room_id_is_create_hash)
        and len(read.prev_events) <= limits[0]
        and len(read.auth_events) <= limits[1]
        and are_plain_references(read.prev_events)
    )


@lru_cache(maxsize=1024)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """These names, the same objects for all events that name them, as most of a room do.

    Raises ValueError for others than `are_plain_references` lets through, which are not kept.
    """
    if not are_plain_references(names):
        raise ValueError("Other names than those of events.")
    return names
